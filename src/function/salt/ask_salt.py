#!/usr/bin/env python3
"""Asks real Salt what states make of a text (file.*, hosts, ini files, authorized keys), and writes its answers into salt.json beside this file; and what
file.serialize writes, into serialize.json. The cases stand in cases.py.

Run it with the Python that Salt is installed for (see the oracle). An answer adds the text afterwards, whether the state succeeded and changed
something, and Salt's comment. Everything happens in a temporary directory.
"""

import json
import os
import sys
import tempfile

import salt.config
import salt.loader

from cases import FILE, SERIALIZE, SETTINGS


def main():
    root = tempfile.mkdtemp()
    home = os.path.join(root, "home")
    os.mkdir(home)
    opts = salt.config.minion_config(None)
    hosts = os.path.join(root, "hosts")
    opts.update(
        {"hosts.file": hosts}, cachedir=root, root_dir=root, file_client="local", file_roots={"base": [root]}, test=False, log_level="quiet", grains={}
    )
    # The one user there is.
    os.mkdir(os.path.join(root, "modules"))
    with open(os.path.join(root, "modules", "user.py"), "w") as out:
        out.write(f"def info(name):\n    return {dict(name='al', home=home, uid=os.geteuid(), gid=os.getegid())!r}\n")
    opts["module_dirs"] = [os.path.join(root, "modules")]
    utils = salt.loader.utils(opts)
    modules = salt.loader.minion_mods(opts, utils=utils)
    states = salt.loader.states(opts, modules, utils, salt.loader.serializers(opts))
    states["file.serialize"]
    for module in list(sys.modules.values()):
        if (getattr(module, "__file__", None) or "").endswith("salt/states/file.py"):
            module.__instance_id__ = "1"
            module.__env__ = "base"
    answers = []
    for before, function, args in FILE + SETTINGS:
        path = os.path.join(tempfile.mkdtemp(dir=root), "f")
        given = dict(args)
        if function.startswith("host."):
            path = hosts
        elif function.startswith("ssh_auth."):
            path = os.path.join(home, ".ssh", "authorized_keys")
        else:
            given["name"] = path
        if os.path.exists(path):
            os.remove(path)
        if before is not None:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", newline="") as out:
                out.write(before)
        modules.pack["__context__"].clear()
        try:
            result = states[function](**given)
            done, says = result["result"], result["comment"]
        except Exception as error:  # what Salt shows as a failed state
            done, says = False, str(error)
        after = None
        if os.path.exists(path):
            with open(path, newline="") as file:
                after = file.read()
        says = says.replace(path, "FILE").replace(root, "ROOT").split("\n")[0]
        answers.append({"before": before, "function": function, "args": args, "after": after, "ok": bool(done), "changes": bool(done and result["changes"]), "says": says})
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "salt.json")
    with open(target, "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(a, ensure_ascii=False) for a in answers) + "\n]\n")
    written = []
    for before, args in SERIALIZE:
        path = os.path.join(tempfile.mkdtemp(dir=root), "f")
        if before is not None:
            with open(path, "w") as out:
                out.write(before)
        try:
            result = states["file.serialize"](name=path, **args)
            done, says = result["result"], result["comment"]
        except Exception as error:
            done, says = False, str(error)
        after = open(path).read() if os.path.exists(path) else None
        says = says.replace(path, "FILE").split("\n")[0]
        written.append({"before": before, "args": args, "after": after, "ok": bool(done), "says": says})
    with open(os.path.join(os.path.dirname(target), "serialize.json"), "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(a, ensure_ascii=False) for a in written) + "\n]\n")
    print(sum(a["ok"] for a in written), "of", len(written), "serialized")
    print(sum(a["ok"] for a in answers), "of", len(answers), "succeeded")


main()
