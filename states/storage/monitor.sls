# The monitor: the agent's own program, kept on the node, and the unit that runs it. It starts anew when its configuration changes.
{%- set storage = salt['pillar.get']('storage', {}) %}
{%- set paths = storage.get('log_paths', []) + storage.get('temporary_paths', []) %}
{%- if storage.get('cache_path') %}{% do paths.append(storage['cache_path']) %}{% endif %}
include:
  - .config
  - basalt.agent

storage_monitor_service:
  file.managed:
    - name: /etc/systemd/system/eos-storage-monitor.service
    - source: salt://storage/files/storage-monitor.service
    - user: root
    - group: root
    - mode: '0644'
  service.running:
    - name: eos-storage-monitor
    - enable: True
    - watch:
      - file: /etc/eos/storage-ops.yaml
      - file: storage_monitor_service
      - file: storage_monitor_paths
      - basalt: /usr/local/sbin/basalt-agent

# Its sandbox lets it write where the unit says, and where pillar says that logs, temporary files and a cache are.
storage_monitor_paths:
  file.managed:
    - name: /etc/systemd/system/eos-storage-monitor.service.d/paths.conf
    - makedirs: True
    - mode: '0644'
    - contents: |
        # Kept by basalt.
        [Service]
        {%- for path in paths %}
        ReadWritePaths=-{{ path }}
        {%- endfor %}
