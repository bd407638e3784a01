backup:
  keep: 14
  minute: 50
