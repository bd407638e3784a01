# Storage operations as every node has them: its numbers, the configuration, and the monitor that goes by it.
include:
  - .thresholds
  - .config
  - .monitor
