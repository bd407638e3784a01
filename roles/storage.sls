# A host that keeps data on btrfs: its volumes and who may mount them (pillar `volumes`), a monthly scrub, and its backups.
{%- set volumes = salt['pillar.get']('volumes', {}) %}
include:
  - backup
{%- if volumes %}
  - volumes

scrub:
  cron.present:
    - name: btrfs scrub start -c 3 {{ volumes.get('pool', '/srv/pool') }}
    - identifier: scrub
    - user: root
    - daymonth: 1
    - hour: 2
    - minute: 0
    - require:
      - mount: pool
{%- endif %}
