# A host for long computations: memory is for programs, and the container runtime is there.
include:
  - roles.core

vm.swappiness:
  sysctl.present:
    - value: 10
