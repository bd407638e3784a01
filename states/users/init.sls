# The people of pillar `users`: a group and an account each, their keys, and sudo for those who have it.
include:
  - .sudo

{%- for name, user in salt['pillar.get']('users', {}).items() %}

user-{{ name }}:
  group.present:
    - name: {{ name }}
    - gid: {{ user['uid'] }}
  user.present:
    - name: {{ name }}
    - uid: {{ user['uid'] }}
    - gid: {{ user['uid'] }}
    - fullname: {{ user.get('fullname', name) | tojson }}
    - shell: {{ user.get('shell', '/bin/bash') }}
    - home: /home/{{ name }}
    {%- if user.get('sudo') %}
    - groups:
      - site-admins
    {%- endif %}
    - require:
      - group: user-{{ name }}
      - group: site-admins

/home/{{ name }}/.ssh:
  file.directory:
    - user: {{ name }}
    - group: {{ name }}
    - mode: '0700'
    - require:
      - user: user-{{ name }}

/home/{{ name }}/.ssh/authorized_keys:
  file.managed:
    - contents: {{ user.get('keys', []) | tojson }}
    - user: {{ name }}
    - group: {{ name }}
    - mode: '0600'
    - require:
      - file: /home/{{ name }}/.ssh
{%- endfor %}
