{%- set tplroot = tpldir.split("/")[0] %}
{%- from tplroot ~ "/map.jinja" import web with context %}

web-package-install-pkg-installed:
  pkg.installed:
    - name: {{ web.pkg.name }}
