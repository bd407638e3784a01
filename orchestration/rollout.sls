# Storage first, then the edge, one host at a time: `basalt orchestrate orchestration.rollout`.
storage:
  salt.state:
    - tgt: 'store*'
    - highstate: True

edge:
  salt.state:
    - tgt: 'edge*'
    - highstate: True
    - batch: 1
    - require:
      - salt: storage
