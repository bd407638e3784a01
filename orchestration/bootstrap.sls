# The first node: everything on one machine, and the numbers of a single node. `basalt bootstrap` does the same by a commit.
first_node:
  salt.state:
    - tgt: {{ pillar['node'] }}
    - sls:
      - roles.monolith
      - storage
    - pillar:
        role: monolith
        scale: single
