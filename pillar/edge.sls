edge:
  name: www.example.org
  greeting: hello from the edge
backup:
  folders:
    - /srv/www
