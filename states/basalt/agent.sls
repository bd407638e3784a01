# The agent's own program, kept on the node for units that run it.
/usr/local/sbin/basalt-agent:
  basalt.agent_present: []
