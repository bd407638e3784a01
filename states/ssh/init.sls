# sshd: keys only. The drop-in leaves the distribution's own file alone; the service reloads when it changes.
openssh-server:
  pkg.installed: []

/etc/ssh/sshd_config.d/site.conf:
  file.managed:
    - source: salt://ssh/files/site.conf.j2
    - template: jinja
    - user: root
    - group: root
    - mode: '0644'
    - require:
      - pkg: openssh-server

ssh:
  service.running:
    - enable: True
    - reload: True
    - watch:
      - file: /etc/ssh/sshd_config.d/site.conf
