# Volumes: subvolumes of one btrfs, each with a limit, mounted by itself and exported over NFSv4 (nfs-ganesha) to the clients that pillar `volumes` accepts.
# A share without clients is kept and not exported. A share that leaves the pillar stays as it is, with its data: take its clients away first.
{%- set volumes = salt['pillar.get']('volumes', {}) %}
{%- if not volumes.get('device') %}{{ raise('pillar `volumes` is to name the device of its pool') }}{% endif %}
{%- set pool = volumes.get('pool', '/srv/pool') %}
{%- set mounts = volumes.get('mounts', '/srv/volumes') %}

volume-packages:
  pkg.installed:
    - pkgs:
      - btrfs-progs
      - nfs-ganesha
      - nfs-ganesha-vfs

/etc/ganesha/exports.conf:
  file.managed:
    - replace: False
    - require:
      - pkg: volume-packages

pool:
  blockdev.formatted:
    - name: {{ volumes['device'] }}
    - fs_type: btrfs
    - label: pool
    - require:
      - pkg: volume-packages
  mount.mounted:
    - name: {{ pool }}
    - device: {{ volumes['device'] }}
    - fstype: btrfs
    - opts: noatime
    - mkmnt: True
    - require:
      - blockdev: pool
  btrfs.quota_enabled:
    - name: {{ pool }}
    - require:
      - mount: pool

{%- for name, share in volumes.get('shares', {}) | dictsort %}

share-{{ name }}:
  btrfs.subvolume_created:
    - name: {{ pool }}/{{ name }}
    - require:
      - btrfs: pool
  mount.mounted:
    - name: {{ mounts }}/{{ name }}
    - device: {{ volumes['device'] }}
    - fstype: btrfs
    - opts: noatime,subvol=/{{ name }}
    - mkmnt: True
    - require:
      - btrfs: share-{{ name }}
  {%- if share.get('clients') %}
  nfs_export.ganesha_present:
    - name: {{ mounts }}/{{ name }}
    - config: /etc/ganesha/exports.conf
    - export_id: {{ share['export_id'] }}
    - pseudo: /{{ name }}
    - access_type: NONE
    - squash: {{ share.get('squash', 'root_squash') }}
    - clients: {{ share['clients'] | tojson }}
    - options:
        SecType: sys
    - require:
      - mount: share-{{ name }}
      - file: /etc/ganesha/exports.conf
  {%- else %}
  nfs_export.ganesha_absent:
    - name: {{ mounts }}/{{ name }}
    - config: /etc/ganesha/exports.conf
  {%- endif %}

share-{{ name }}-limit:
  btrfs.qgroup_limited:
    - name: {{ pool }}/{{ name }}
    - referenced: {{ share.get('size', 'none') }}
    - require:
      - btrfs: share-{{ name }}
    - require_in:
      - mount: share-{{ name }}
{%- endfor %}

nfs-ganesha:
  file.managed:
    - name: /etc/ganesha/ganesha.conf
    - source: salt://volumes/files/ganesha.conf.j2
    - template: jinja
    - mode: '0644'
    - require:
      - pkg: volume-packages
  service.running:
    - enable: True
    - require:
      - file: /etc/ganesha/exports.conf
      {%- for name, share in volumes.get('shares', {}) | dictsort if share.get('clients') %}
      - nfs_export: share-{{ name }}
      {%- endfor %}
    - watch:
      - file: nfs-ganesha
