# The numbers of this node as a grain, for others to target by. What this node is comes from the cluster (its grains `role` and `scale`).
# Alone it is what an orchestration applies when the scale has changed: with the numbers goes the configuration that has them.
{%- from 'storage/files/numbers.jinja' import numbers with context %}
include:
  - .config

storage_thresholds:
  grains.present:
    - value: {{ numbers | tojson }}
    - force: True
