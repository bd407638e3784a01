# A host that watches the others: Prometheus asks the node exporters of all nodes that the mine knows.
{% set nodes = salt['mine.get']('*', 'node_info') %}

prometheus:
  pkg.installed: []
  service.running:
    - enable: True
    - reload: True
    - require:
      - pkg: prometheus
    - watch:
      - file: /etc/prometheus/prometheus.yml

/etc/prometheus/prometheus.yml:
  file.serialize:
    - serializer: yaml
    - dataset:
        scrape_configs:
          - job_name: nodes
            static_configs:
              - targets: {{ nodes.keys() | map('regex_replace', '$', ':9100') | list | tojson }}
    - require:
      - pkg: prometheus
