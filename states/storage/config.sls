# The configuration of storage operations: the monitor knows nothing else.
{%- from 'storage/files/numbers.jinja' import role, scale, numbers with context %}
/etc/eos/storage-ops.yaml:
  file.managed:
    - source: salt://storage/files/storage-ops.yaml.jinja
    - template: jinja
    - makedirs: True
    - user: root
    - group: root
    - mode: '0644'
    - context:
        scale: {{ scale }}
        role: {{ role }}
        thresholds: {{ numbers | tojson }}
