# Which states go to which hosts. `roles.edge` is roles/edge.sls: roles/ and orchestration/ are mounted beside states/ under their own names.
base:
  '*':
    - common
    - users
    - ssh
  'role:*':
    - match: grain
    - storage
  'edge*':
    - roles.edge
  'store*':
    - roles.storage
