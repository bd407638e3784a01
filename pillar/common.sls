common:
  owner: the sample site
  packages:
    - ca-certificates
    - curl
    - less
ssh:
  options:
    ClientAliveInterval: 60
    MaxAuthTries: 3
