{% from "people/map.jinja" import people with context %}
{% set with_sudo = [] %}

{% for group, setting in salt['pillar.get']('groups', {}).items() %}
people_group_{{ group }}:
  group.present:
    - name: {{ group }}
    - gid: {{ setting.get('gid', 'null') }}
    - system: {{ setting.get('system', 'False') }}
{% endfor %}

{% for name, user in pillar.get('people', {}).items() if user.absent is not defined or not user.absent %}
{%- set current = salt.user.info(name) -%}
{%- set home = user.get('home', current.get('home', '/home/%s' % name)) -%}
{%- if 'sudo_rules' in user %}{% do with_sudo.append(name) %}{% endif %}

people_{{ name }}_prereq:
  file.directory:
    - name: {{ salt['file.dirname'](home) }}
    - makedirs: True
    - prereq:
      - user: people_{{ name }}

people_{{ name }}:
  group.present:
    - name: {{ name }}
  user.present:
    - name: {{ name }}
    - home: {{ home }}
    - shell: {{ user.get('shell', current.get('shell', people.shell)) }}
    - gid: {{ name }}
    - fullname: {{ user.get('fullname', '') }}
    - groups: {{ (user.get('groups', [])) | json }}
    - require:
      - group: people_{{ name }}
  file.directory:
    - name: {{ home }}
    - user: {{ name }}
    - group: {{ name }}
    - mode: '0750'
    - require:
      - user: people_{{ name }}

{% for auth in user.get('ssh_auth', []) %}
people_{{ name }}_auth_{{ loop.index0 }}:
  ssh_auth.present:
    - user: {{ name }}
    - name: {{ auth }}
    - require:
      - file: people_{{ name }}
      - user: people_{{ name }}
{% endfor %}

{% if 'sudo_rules' in user %}
people_{{ people.sudoers_dir }}/{{ name }}:
  file.managed:
    - replace: True
    - name: {{ people.sudoers_dir }}/{{ name }}
    - contents: |
        ########################################################################
        # made from pillar: changes go
        {%- for rule in user.sudo_rules %}
        {{ name }} {{ rule }}
        {%- endfor %}
    - mode: '0440'
    - user: root
    - group: {{ people.root_group }}
    - check_cmd: {{ people.visudo }} -cf
  cmd.run:
    - name: visudo -cf {{ people.sudoers_dir }}/{{ name }} || ( rm -f {{ people.sudoers_dir }}/{{ name }}; exit 1 )
    - onchanges:
      - file: people_{{ people.sudoers_dir }}/{{ name }}
{% endif %}
{% endfor %}

{% for name, user in pillar.get('people', {}).items() if user.absent is defined and user.absent %}
people_absent_{{ name }}:
  user.absent:
    - name: {{ name }}
  file:
    - {{ 'absent' if user.absent else 'managed' }}
    - name: {{ people.sudoers_dir }}/{{ name }}
    - contents: ''
{% endfor %}

{% if with_sudo %}
people_sudoer-defaults:
  file.append:
    - name: {{ people.sudoers_dir }}/people-defaults
    - text: |
        # for {{ with_sudo | join(', ') }}
        Defaults:{{ with_sudo | first }} !requiretty
    - makedirs: True
{% endif %}
