"""Runs on a host beside its own Salt: asks it every call of calls.json and prints the answers as one JSON list, errors as texts that begin with
`error: `. tests/grains.rs compares them with basalt's."""
import json, logging, sys

logging.disable(logging.CRITICAL)
import salt.client
import salt.config

opts = salt.config.minion_config("/etc/salt/minion")
opts["file_client"] = "local"
caller = salt.client.Caller(mopts=opts)
answers = []
for function, args, kwargs in json.load(open(sys.argv[1])):
    try:
        answer = caller.cmd(function, *args, **dict(kwargs))
        answer = json.loads(json.dumps(answer, default=str))
    except Exception as e:
        answer = "error: %s: %s" % (type(e).__name__, e)
    answers.append(answer)
print("ANSWERS" + json.dumps({"grains": dict(caller.cmd("grains.items")), "answers": answers}, default=str))
