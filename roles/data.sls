# A host for data: what a storage host is.
include:
  - roles.storage
