# A nightly archive of /etc into /var/backups, and of what roles add to pillar `backup:folders`.
/usr/local/sbin/site-backup:
  file.managed:
    - source: salt://backup/files/site-backup.j2
    - template: jinja
    - user: root
    - group: root
    - mode: '0755'

site-backup:
  cron.present:
    - name: /usr/local/sbin/site-backup
    - identifier: site-backup
    - user: root
    - hour: 3
    - minute: {{ salt['pillar.get']('backup:minute', 20) }}
    - comment: nightly archive
    - require:
      - file: /usr/local/sbin/site-backup
