# A host that faces the world: nginx with one site, and its backups.
include:
  - backup

nginx:
  pkg.installed: []
  service.running:
    - enable: True
    - reload: True
    - require:
      - pkg: nginx
    - watch:
      - file: /etc/nginx/conf.d/site.conf

/srv/www/index.html:
  file.managed:
    - contents: {{ salt['pillar.get']('edge:greeting', 'hello') | tojson }}
    - makedirs: True
    - mode: '0644'

/etc/nginx/conf.d/site.conf:
  file.managed:
    - contents: |
        server {
            listen 80;
            server_name {{ salt['pillar.get']('edge:name', grains['id']) }};
            root /srv/www;
        }
    - mode: '0644'
    - require:
      - pkg: nginx
      - file: /srv/www/index.html
