# Members of `site-admins` may become root. The file is checked by visudo before it takes the place of the old one: a broken sudoers locks everybody out.
sudo:
  pkg.installed: []

site-admins:
  group.present:
    - system: True

/etc/sudoers.d/site-admins:
  file.managed:
    - source: salt://users/files/sudoers
    - user: root
    - group: root
    - mode: '0440'
    - check_cmd: /usr/sbin/visudo -c -f
    - require:
      - pkg: sudo
      - group: site-admins
