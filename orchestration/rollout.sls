# Storage first, then the edge, one host at a time: Salt's orchestration language. basalt compiles it today; the command that runs it comes later.
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
