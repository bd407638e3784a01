#!/usr/bin/env python3
"""Asks real Salt what states make of text files that are not their name (hosts, ini files, authorized keys, apt's sources), and writes its answers
into salt.json beside this file; and what file.serialize writes, into serialize.json.

Run it with the Python that Salt is installed for (see the oracle). A case is [text before or null, function, arguments]; an answer adds the text
afterwards, whether the state succeeded, and Salt's comment. Everything happens in a temporary directory.
"""

import json
import os
import sys
import tempfile

import salt.config
import salt.loader

HOSTS = "127.0.0.1\tlocalhost\n# a comment\n\n10.0.0.1 a b # why\n10.0.0.2 c\n10.0.0.1 d\n"
INI = "; head\ntop = 1\n\n[one]\n# a = 0\na=1\n  more\nb = 2 \n\n\n[two]\n;x = 1\n#y: 2\nc: 3\nplain\n[one]\nd=4\n"
K1, K2, K3 = "AAAAB3NzaC1yc2EA", "AAAAC3NzaC1lZDI1", "AAAAE2VjZHNhLXNo"
KEYS = f"# mine\nssh-rsa {K1} one\n\nno-pty,command=\"a b\" ssh-ed25519 {K2} two words\nnonsense here"


def host(fun, before, **args):
    return [before, f"host.{fun}", args]


def ini(fun, before, sections, **args):
    return [before, f"ini.{fun}", dict(sections=sections, **args)]


def key(fun, before, name, **args):
    return [before, f"ssh_auth.{fun}", dict(name=name, user="al", **args)]


CASES = [
    *[host("present", b, name=n, ip=i) for b in ("", "127.0.0.1 localhost", HOSTS) for n in ("c", "new") for i in ("10.0.0.2", "10.0.0.1", "fe80::1")],
    host("present", HOSTS, name="new", ip=["10.0.0.1", "10.0.0.2"]),
    host("present", HOSTS, name="c", ip="10.0.0.1", clean=True),
    host("present", HOSTS, name="c", ip="10.0.0.2", comment="said"),
    host("present", HOSTS, name="a", ip="10.0.0.1", comment="why"),
    host("present", HOSTS, name="a", ip="10.0.0.1", comment="other"),
    host("present", HOSTS, name="x", ip="10.0.0.9", comment="new one"),
    host("present", None, name="x", ip="10.0.0.9"),
    *[host("absent", HOSTS, name=n, ip=i) for n in ("a", "b", "c", "d", "nope") for i in ("10.0.0.1", "10.0.0.2", ["10.0.0.1", "10.0.0.2"])],
    *[host("only", b, name=i, hostnames=n) for b in (HOSTS, "10.0.0.1 a") for i in ("10.0.0.1", "10.0.0.7") for n in ("a", ["a", "b", "d"], ["z", " y "], [])],
    *[ini("options_present", b, s) for b in ("", None, INI, "a = 1\n", "[one]\na = 1\n") for s in (
        {"one": {"a": 1}}, {"one": {"a": 5, "z": True}}, {"new": {"k": "v"}}, {"top": 2}, {"top": 1, "one": {"b": "2 "}}, {"two": {"x": 3, "y": 4}},
        {"one": {"sub": {"deep": 1}}})],
    *[ini("options_present", b, s, strict=True) for b in (INI, "[one]\na = 1\n") for s in ({"one": {"a": 1}}, {"one": {"d": 4}, "top": 1}, {"two": {"c": 3}})],
    *[ini("options_present", b, {"one": {"a": 9}}, no_spaces=n) for b in (INI, "[one]\na = 1\n") for n in (True, False)],
    *[ini("options_present", b, {"two": {"c": 9}}, separator=":") for b in (INI, "[two]\nc:3\nd: x:y\n")],
    ini("options_present", "key value\n[a]\nk v\n", {"a": {"k": "w"}}, separator=" "),
    ini("options_present", "[a]\n\tk = 1\n\t\tdeeper\n\n  j = 2\n\n", {"a": {"k": "w"}}),
    *[ini("options_absent", INI, s) for s in ({"one": ["a"]}, {"one": ["nope"]}, {"two": ["c"], "one": ["b", "d"]}, {"none": ["q"]})],
    *[ini("sections_absent", b, s) for b in (INI, "[one]\na = 1\n") for s in (["one"], ["nope"], ["one", "two"])],
    *[key("present", b, n) for b in (None, "", KEYS) for n in (
        f"ssh-rsa {K1} one", f"ssh-rsa {K1} other", f"ssh-rsa {K1}", K1, f"{K1} said", f"ssh-ed25519 {K2} two words", f"no-pty ssh-ed25519 {K2} two words",
        f"ecdsa-sha2-nistp256 {K3} three", f'from="10.0.0.*",no-pty ssh-rsa {K3} x y z')],
    key("present", KEYS, K3, enc="ed25519", comment="c", options=["no-pty", "no-x11-forwarding"]),
    key("present", KEYS, K3, enc="what"),
    key("present", KEYS, "ssh-rsa not/base"),
    *[key("absent", b, n) for b in (None, KEYS) for n in (f"ssh-rsa {K1} one", K2, f"ssh-rsa {K3}")],
]

DATA = [
    {},
    {"b": 1, "a": [1, "x", None, True, 1.5], "c": {"d": {}, "e": [], "f": "yes", "g": "1.0", "h": ""}},
    {"text": "two\nlines\n", "quote": "it's \"so\"", "umlaut": "Grüße", "colon": "a: b", "hash": "#x", "long": "word " * 40, "date": "2020-01-02"},
    [1, [2, [3]], {"a": [{"b": 1}, {"c": 2}]}],
    "just text",
    {"1": "number", "true": "word", "tab": "a\tb", "slash": "/etc/x", "star": "*", "at": "@x", "null": "null", "tilde": "~"},
]
SERIALIZE = [
    *[[None, dict(dataset=d, **k)] for d in DATA for k in ({}, {"serializer": "json"}, {"encoding": "utf-8"})],
    [None, dict(dataset=DATA[1], formatter="yaml", serializer_opts=[{"default_flow_style": True}, {"explicit_start": True}])],
    [None, dict(dataset=DATA[1], serializer_opts=[{"indent": 4}, {"width": 40}, {"allow_unicode": True}])],
    [None, dict(dataset=DATA[2], serializer_opts=[{"width": 40}])],
    [None, dict(dataset=DATA[1], serializer="json", serializer_opts=[{"indent": 4}, {"sort_keys": False}])],
    [None, dict(dataset=DATA[2], serializer="json", serializer_opts=[{"ensure_ascii": True}])],
    [None, dict(dataset={"a": 1}, serializer="json", formatter="yaml")],
    [None, dict(serializer="json")],
    *[[b, dict(dataset=d, merge_if_exists=True)] for b in (None, "", "a: 1\nb: {c: [1]}\n", "- 1\n") for d in ({"a": 1}, {"b": {"c": [2], "d": 3}})],
    ['{"a": {"x": 1}}', dict(dataset={"a": {"y": 2}}, merge_if_exists=True, serializer="json")],
    ["{", dict(dataset={"a": {"y": 2}}, merge_if_exists=True, serializer="json")],
]


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
    answers = []
    for before, function, args in CASES:
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
        says = says.replace(root, "ROOT").split("\n")[0]
        answers.append({"before": before, "function": function, "args": args, "after": after, "ok": bool(done), "changes": bool(done and result["changes"]), "says": says})
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "salt.json")
    with open(target, "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(a, ensure_ascii=False) for a in answers) + "\n]\n")
    states["file.serialize"]
    for module in list(sys.modules.values()):
        if (getattr(module, "__file__", None) or "").endswith("salt/states/file.py"):
            module.__instance_id__ = "1"
            module.__env__ = "base"
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
