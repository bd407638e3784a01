# A host that passes messages on: an MQTT broker.
mosquitto:
  pkg.installed: []
  service.running:
    - enable: True
    - require:
      - pkg: mosquitto
    - watch:
      - file: /etc/mosquitto/conf.d/listener.conf

/etc/mosquitto/conf.d/listener.conf:
  file.managed:
    - contents: |
        listener 1883
        allow_anonymous false
        password_file /etc/mosquitto/passwd
    - require:
      - pkg: mosquitto
      - file: /etc/mosquitto/passwd

# Passwords come by `mosquitto_passwd`; without any nobody may log in.
/etc/mosquitto/passwd:
  file.managed:
    - replace: False
    - user: mosquitto
    - mode: '0600'
    - require:
      - pkg: mosquitto
