# A node comes: everybody gets the role that the number of nodes gives it. After the Eos design; `basalt node add` does the same by a commit.
{% set new_node = pillar.get('new_node') %}
{% set current_nodes = salt['mine.get']('*', 'node_info') %}

# Step 1: Accept new node
accept_new_node:
  salt.wheel:
    - name: key.accept
    - match: {{ new_node.hostname }}

# Step 2: Calculate new roles
{% set new_roles = salt['eos_roles.recalculate'](current_nodes, new_node) %}

# Step 3: Update all node roles
{% for node, role in new_roles.items() %}
update_{{ node }}_role:
  salt.state:
    - tgt: {{ node }}
    - sls:
      - roles.{{ role }}
      - storage.config
    - pillar:
        role: {{ role }}
        scale: {{ new_roles.scale }}
{% endfor %}

# Step 4: Update storage thresholds
update_storage_thresholds:
  salt.state:
    - tgt: '*'
    - sls: storage.thresholds
    - pillar:
        scale: {{ new_roles.scale }}
