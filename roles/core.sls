# A host for the cluster's own services, which run in containers.
podman:
  pkg.installed: []

/etc/containers/containers.conf.d/limits.conf:
  file.managed:
    - makedirs: True
    - contents: |
        [containers]
        log_size_max = 52428800
    - require:
      - pkg: podman
