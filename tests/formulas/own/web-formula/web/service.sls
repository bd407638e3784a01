{%- set tplroot = tpldir.split("/")[0] %}
{%- set sls_config_file = tplroot ~ ".config.file" %}
{%- from tplroot ~ "/map.jinja" import web with context %}

include:
  - {{ sls_config_file }}

web-service-running-service-running:
  service.running:
    - name: {{ web.service.name }}
    - enable: True
    - watch:
      - sls: {{ sls_config_file }}

web-service-log-file-managed:
  file.managed:
    - name: /etc/logrotate.d/{{ web.service.name }}
    - makedirs: True
    - contents: |
        /var/log/{{ web.service.name }}.log {
            {{ salt["pillar.get"]("web:rotate", "weekly") }}
        }
    - onlyif:
      - test -d /etc
    - require:
      - service: web-service-running-service-running

web-service-timer-cron-present:
  cron.present:
    - name: /usr/bin/{{ web.service.name }} --tidy
    - identifier: {{ web.service.name }}
    - special: '@daily'
