#!/usr/bin/env python3
"""Asks real Salt for the answers: answer.py more.json rewrites the file with what Salt 3008.5 renders or says.

ORACLE names the folder of oracle.py, which brings the virtual environment with Salt."""
import json, os, re, sys, tempfile

ORACLE = os.environ.get("ORACLE", "/work/shared/oracle")
VENV = os.environ.get("SALT_VENV", "/var/cache/basalt-oracle/venv")
if os.path.realpath(sys.prefix) != os.path.realpath(VENV):
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(VENV + "/bin/python", [VENV + "/bin/python"] + sys.argv)
sys.path.insert(0, ORACLE)
import oracle

path = sys.argv[1]
suite = json.load(open(path))
for probes in suite["sets"]:
    with tempfile.TemporaryDirectory() as root:
        for name, text in probes["files"].items():
            os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
            open(os.path.join(root, name), "w").write(text)
        for i, probe in enumerate(probes["probes"]):
            open(os.path.join(root, "p%03d.sls" % i), "w").write(probe["template"])
        salt = oracle.Oracle([root], {"id": "minion", **suite["grains"]}, None, suite["pillar"])
        for i, probe in enumerate(probes["probes"]):
            answer = salt.compile(["p%03d" % i])
            probe.pop("text", None)
            probe.pop("error", None)
            texts = [r["text"] for r in answer["rendered"] if r["sls"] == "p%03d" % i]
            if texts:
                probe["text"] = texts[0]
            else:
                probe["error"] = re.sub(r"\s+", " ", answer["errors"][0])[:200] if answer["errors"] else ""
        salt.close()
json.dump(suite, open(path, "w"), indent=1, ensure_ascii=False)
open(path, "a").write("\n")
