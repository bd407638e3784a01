# Storage operations as every node has them: its numbers, and the configuration that the monitor goes by.
include:
  - .thresholds
  - .config
