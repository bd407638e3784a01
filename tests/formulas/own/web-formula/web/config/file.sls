{%- set tplroot = tpldir.split("/")[0] %}
{%- set sls_package_install = tplroot ~ ".package" %}
{%- from tplroot ~ "/map.jinja" import web with context %}
{%- from tplroot ~ "/libtofs.jinja" import files_switch with context %}

include:
  - {{ sls_package_install }}

web-config-file-file-managed:
  file.managed:
    - name: {{ web.config.path }}
    - source:
{{ files_switch(["main.conf.jinja"], lookup="web-config-file-file-managed") }}
    - mode: 644
    - user: root
    - group: {{ web.rootgroup }}
    - makedirs: True
    - template: jinja
    - require:
      - sls: {{ sls_package_install }}
    - context:
      web: {{ web | json }}
