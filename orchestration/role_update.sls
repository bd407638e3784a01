# A role has changed: its nodes are brought up to date, one at a time, and nothing goes on behind a failure.
{% set role = pillar['role'] %}
update_{{ role }}:
  salt.state:
    - tgt: 'role:{{ role }}'
    - tgt_type: grain
    - batch: 1
    - sls:
      - roles.{{ role }}
      - storage.config
    - failhard: True
