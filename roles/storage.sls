# A host that keeps data on btrfs: the tools, a place for it, a monthly scrub, and its backups.
include:
  - backup

btrfs-progs:
  pkg.installed: []

/srv/data:
  file.directory:
    - user: root
    - group: root
    - mode: '0755'

scrub:
  cron.present:
    - name: btrfs scrub start -c 3 /srv/data
    - identifier: scrub
    - user: root
    - daymonth: 1
    - hour: 2
    - minute: 0
    - require:
      - pkg: btrfs-progs
      - file: /srv/data
