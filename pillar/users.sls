# Sample people; the keys are nobody's (documentation only).
users:
  lena:
    uid: 3001
    fullname: Lena Sample
    sudo: True
    keys:
      - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA lena@example.org
  omar:
    uid: 3002
    fullname: Omar Sample
