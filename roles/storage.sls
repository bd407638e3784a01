# A host that keeps data on btrfs: its volumes and who may mount them, a monthly scrub, and its backups.
include:
  - backup
  - volumes

scrub:
  cron.present:
    - name: btrfs scrub start -c 3 /srv/pool
    - identifier: scrub
    - user: root
    - daymonth: 1
    - hour: 2
    - minute: 0
    - require:
      - mount: pool
