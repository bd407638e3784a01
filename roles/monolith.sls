# The only node of a cluster: it faces the world, holds the cluster's services and its data, and runs the applications.
include:
  - roles.edge
  - roles.core
  - roles.data
  - roles.app
