# A node goes: the others get the roles of fewer nodes. `basalt node remove` does the same by a commit, its processes first.
{% set gone = pillar['node'] %}
{% set nodes = salt['mine.get']('*', 'node_info') %}
{% do nodes.pop(gone, None) %}
{% set roles = salt['cluster_roles.recalculate'](nodes) %}

{% for node, role in roles.items() %}
update_{{ node }}_role:
  salt.state:
    - tgt: {{ node }}
    - sls:
      - roles.{{ role }}
      - storage.config
    - pillar:
        role: {{ role }}
        scale: {{ roles.scale }}
{% endfor %}
