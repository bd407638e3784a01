# Which states go to which hosts: by their role in a cluster (`basalt node`), or by their name. `roles.edge` is roles/edge.sls: roles/ and orchestration/ are mounted beside states/ under their own names.
base:
  '*':
    - common
    - users
    - ssh
  'role:*':
    - match: grain
    - storage
    - basalt.announce
  'role:monolith':
    - match: grain
    - roles.monolith
  'role:edge':
    - match: grain
    - roles.edge
  'role:core':
    - match: grain
    - roles.core
  'role:data':
    - match: grain
    - roles.data
  'role:message':
    - match: grain
    - roles.message
  'role:observe':
    - match: grain
    - roles.observe
  'role:compute':
    - match: grain
    - roles.compute
  'role:app':
    - match: grain
    - roles.app
  'edge*':
    - roles.edge
  'store*':
    - roles.storage
