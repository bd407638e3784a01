# A host for applications: a user that they run as, and a place for them.
app:
  group.present:
    - system: True
  user.present:
    - system: True
    - gid: app
    - home: /srv/app
    - createhome: False
    - shell: /usr/sbin/nologin
    - require:
      - group: app

/srv/app:
  file.directory:
    - user: app
    - group: app
    - mode: '0750'
    - require:
      - user: app
