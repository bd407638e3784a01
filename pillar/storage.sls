backup:
  keep: 14
  minute: 50
volumes:
  device: /dev/vdb
  shares:
    projects:
      export_id: 1
      size: 200G
      clients:
        - hosts: 192.0.2.11
          access_type: RW
    archive:
      export_id: 2
      size: 2T
      clients:
        - hosts: 192.0.2.0/24
          access_type: RO
