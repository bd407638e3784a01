# A node that has booted says so to its controllers, until one of them acknowledges (`basalt watch --listen`). Pillar names them, by address:
#
#   announce:
#     to: [192.0.2.1]
{%- set to = salt['pillar.get']('announce:to', []) %}
{%- if to %}
include:
  - .agent

# Made by the controller for this node alone; what it announces is believed by it.
/etc/basalt/announce.key:
  file.managed:
    - contents: {{ salt['basalt.announce_key']() }}
    - makedirs: True
    - user: root
    - group: root
    - mode: '0600'

# It runs once after a boot, and ends when it is acknowledged: it is enabled, and nobody starts it.
basalt_announce:
  file.managed:
    - name: /etc/systemd/system/basalt-announce.service
    - source: salt://basalt/files/announce.service.jinja
    - template: jinja
    - context:
        to: {{ to | tojson }}
    - user: root
    - group: root
    - mode: '0644'
  service.enabled:
    - name: basalt-announce
    - require:
      - file: basalt_announce
      - file: /etc/basalt/announce.key
      - basalt: /usr/local/sbin/basalt-agent
{%- endif %}
