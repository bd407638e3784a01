# What git says runs on this node (`basalt process`): a configuration file for each process, and its unit on or off.
{% set processes = grains.get('processes', []) %}

# A process that is gone leaves no configuration behind.
/etc/sysconfig/processes:
  file.directory:
    - makedirs: True
    - clean: True

{% for process in processes %}
/etc/sysconfig/processes/{{ process.id }}:
  file.managed:
    - contents:
      - '# {{ process.role }} on {{ grains['id'] }}, by basalt'
{%- for name, value in process.get('configuration', {}).items() %}
      - {{ (name ~ '=' ~ value) | tojson }}
{%- endfor %}
    - require_in:
      - file: /etc/sysconfig/processes
{% if process.managed and process.unit %}
{{ process.unit }}:
{%- if process.wanted == 'online' %}
  service.running:
    - enable: True
    - watch:
      - file: /etc/sysconfig/processes/{{ process.id }}
{%- else %}
  service.dead:
    - enable: False
{%- endif %}
{% endif %}
{% endfor %}
