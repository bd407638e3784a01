# What every host has: a few tools, a message of the day, a logrotate rule for what we log ourselves.
{%- set common = salt['pillar.get']('common', {}) %}

common-packages:
  pkg.installed:
    - pkgs: {{ common.get('packages', ['ca-certificates', 'curl']) | tojson }}

/etc/motd:
  file.managed:
    - source: salt://common/files/motd.j2
    - template: jinja
    - user: root
    - group: root
    - mode: '0644'
    - context:
        owner: {{ common.get('owner', 'nobody in particular') | tojson }}

/var/log/site:
  file.directory:
    - user: root
    - group: adm
    - mode: '2750'

/etc/logrotate.d/site:
  file.managed:
    - contents: |
        /var/log/site/*.log {
            weekly
            rotate {{ common.get('keep_weeks', 8) }}
            compress
            missingok
        }
    - mode: '0644'
    - require:
      - file: /var/log/site
