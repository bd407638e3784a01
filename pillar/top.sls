# Which data goes to which hosts.
base:
  '*':
    - common
    - users
  'edge*':
    - edge
  'store*':
    - storage
