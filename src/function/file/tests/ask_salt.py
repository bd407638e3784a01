#!/usr/bin/env python3
"""Asks real Salt what file.* states make of a text, and writes its answers into salt.json beside this file.

Run it with the Python that Salt is installed for (see the oracle). A case is [text before or null, function, arguments]; an answer adds the
text afterwards, whether the state succeeded, and Salt's comment. Only texts are asked about: the arguments never name other files.
"""

import json
import os
import sys
import tempfile

import salt.config
import salt.loader

M = "1\n#-- start managed zone --\nold\n#-- end managed zone --\n2\n"


def line(text, /, **args):
    return [text, "file.line", args]


def replace(before, pattern, repl, **args):
    return [before, "file.replace", dict(pattern=pattern, repl=repl, backup=False, **args)]


def append(before, text, **args):
    return [before, "file.append", dict(text=text, **args)]


def prepend(before, text, **args):
    return [before, "file.prepend", dict(text=text, **args)]


def comment(before, regex, **args):
    return [before, "file.comment", dict(regex=regex, backup=False, **args)]


def uncomment(before, regex, **args):
    return [before, "file.uncomment", dict(regex=regex, backup=False, **args)]


def block(before, content, **args):
    return [before, "file.blockreplace", dict(content=content, backup=False, **args)]


def keyvalue(before, **args):
    return [before, "file.keyvalue", args]


CASES = [
    *[line(b, mode="insert", content="x", location=l) for b in ("a\nb\n", "a\nb", "", "  a\n  b\n") for l in ("start", "end")],
    *[line(b, mode=m, content="x", after="b") for b in ("a\nb\n", "a\nb", "b\na\n", "b\nx\na\n", "a\n") for m in ("ensure", "insert")],
    *[line(b, mode=m, content="x", before="b") for b in ("a\nb\n", "a\nb", "b\na\n", "x\nb\na\n", "  b\n") for m in ("ensure", "insert")],
    *[line(b, mode="ensure", content="x", after="a", before="b") for b in ("a\nb\n", "a\nx\nb\n", "a\ny\nb\n", "a\n1\n2\nb\n", "  a\nb\n", "b\na\n", "x\na\nb\n")],
    line("a\nb\n", mode="insert", content="x", after="a", before="b"),
    line("a\na\n", mode="ensure", content="x", after="a"),
    line("a\nb\n", mode="delete", content="b"),
    line("a\nb\na\n", mode="delete", match="a"),
    line("a1\nb\na2\n", mode="delete", match="^a"),
    line("a\n", mode="delete", match="z"),
    line("", mode="delete", match="z"),
    line("a\nb\n", mode="replace", content="c", match="zz"),
    line("a=1\n  b=1\n", mode="replace", content="b=2", match="b=1"),
    line("a=1\n  b=1\n", mode="replace", content="b=2", match="b=1", indent=False),
    line("a=1\nb=1\n", mode="replace", content="b=2", match="^b=.*$"),
    line("b=1", mode="replace", content="b=2", match="^b"),
    line("a (b\n", mode="replace", content="c", match="a [(]b"),
    line("a\n", mode="ensure", content="x"),
    line("a\n", mode="insert", content="x"),
    line("a\n", mode="other", content="x"),
    line("a\n", content="x"),
    line("a\n", mode="insert", after="a"),
    line(None, mode="delete", match="a"),
    line(None, mode="insert", content="x", location="end", create=True),
    replace("a=1\nb=2\n", "^a=.*", "a=3"),
    replace("a=1\nb=2\n", "^a=.*$", "a=3"),
    replace("A=1\n", "^a=", "b=", flags=["IGNORECASE", "MULTILINE"]),
    replace("A=1\n", "^a=", "b=", flags=10),
    replace("x x x\n", "x", "y", count=2),
    replace("abc\n", ".*", "X"),
    replace("abc\ndef\n", ".*", "X"),
    replace("abc\ndef\n", "^", "# "),
    replace("abc\ndef\n", "$", ";"),
    replace("a b\n", r"(\w) (\w)", r"\2 \1"),
    replace("a b\n", r"(?P<x>\w) ", r"\g<x>-\g<0>"),
    replace("a\n\nb\n", r"\n\n", "\n"),
    replace("a\n", "a", r"x\ty\.z\\"),
    replace("a\n", "a", r"C:\dir", backslash_literal=True),
    replace("a\n", "a", r"\d"),
    replace("a\n", "(a", "b"),
    replace("a\n", "a", r"\1"),
    replace("a{b}\n", "a{b}", "c"),
    replace("[a]\n", r"[[]a[]]", "c"),
    replace("a.b\n", "a\\.b", "c"),
    replace("path = /a/b\n", r"path\ =\ \/a\/b", "c"),
    replace("a\nb\n", "a$\nb", "c"),
    replace("a\nb\n", r"a\Z", "c"),
    replace("a\nb\n", r"b$\Z", "c", flags=0),
    replace("a\nb\n", "b$", "c", flags=0),
    replace("a\nb\n", "^b", "c", flags=0),
    replace("a\nb\n", "a.b", "c", flags=["DOTALL"]),
    replace("a\nb\n", "a.b", "c", flags="DOTALL"),
    replace("é\n", "é", "ü"),
    replace("foo bar\n", r"\bfoo\b(?! baz)", "x"),
    replace("foo\n", r"(?i)FOO", "x"),
    replace("a-b_c\n", r"[\w\-]+", "x"),
    replace("aXb\n", r"(a)(?:X)(b)", r"\1\2"),
    replace("tab\there\n", "\\t", " "),
    *[replace(b, "^b=.*", "b=1", append_if_not_found=True) for b in ("a\n", "a", "", "b=0\n", "# b=1\n")],
    *[replace(b, "^b=.*", "b=1", prepend_if_not_found=True) for b in ("a\n", "a", "", "b=0\n")],
    replace("b=1 # mine\n", "^c", "b=1 # mine", append_if_not_found=True),
    replace("a\n", "^(b)", r"\1", not_found_content="B", append_if_not_found=True),
    replace("a\nB\n", "^(b)", r"\1", not_found_content="B", append_if_not_found=True),
    replace("a\r\nb\r\n", "^z", "b", append_if_not_found=True),
    replace("a\n", "z", "y", append_if_not_found=True, prepend_if_not_found=True),
    replace(None, "a", "b"),
    replace(None, "a", "b", ignore_if_missing=True),
    *[append(b, t) for b in ("", "a\n", "a", "a  b\n", "a\nb\n", "xa b\n") for t in ("a", "a b", "a\nb\n", ["b", "c"], ["", "c"], "a\n\nb")],
    append("say \"a  b\" 'c'\n", "say \"a b\" 'c'"),
    append("say \"a  b\"\n", "say \"a b\""),
    append("if [ -z \"$x\" ]&&[ y ]; then\n", "if [ -z \"$x\" ] && [ y ]; then"),
    append("ab\n", "a.", ignore_whitespace=False),
    append("b\n", "a.", ignore_whitespace=False),
    append("1\n", 1),
    append(None, "x"),
    *[prepend(b, t) for b in ("", "a\n", "a", "x\na b\n") for t in ("a", "a b", ["b", "c"])],
    *[prepend(b, t, header=True) for b in ("", "a\nb\n", "b\na\n") for t in ("a", ["a", "b"])],
    *[comment(b, r) for b in ("a\n", "  a\n", "#a\n", "# a\n", "b\n", "a\na b\n", "ba\n") for r in ("^a", "a", "^a$")],
    comment("b\n", "^a", ignore_missing=True),
    comment("a = 1\n", "^a", char=";"),
    comment("a = 1\n", "^a", char="//"),
    *[uncomment(b, r) for b in ("#a\n# a\n", "##a\n", "  #a\n", "a\n", "b\n", "#a b\n") for r in ("^a", "a", "a$")],
    uncomment(";a\n", "a", char=";"),
    uncomment("//a\n", "a", char="//"),
    *[block(b, "new", **{k: True}) for b in ("x\n", "x", "", M) for k in ("append_if_not_found", "prepend_if_not_found")],
    *[block(M, c) for c in ("new", "new\n", "new\nnewer", "", "old", "old\n", "a\r\nb")],
    *[block(M, c, append_newline=n) for c in ("new", "new\n") for n in (True, False)],
    block("1\n#-- start managed zone --\nold\n", "new"),
    block("x\n", "new"),
    block(M + M, "new"),
    block("x\ny\n", "new", insert_after_match="x"),
    block("x\ny\n", "new\n", insert_before_match="y"),
    block("x\ny\n", "new", insert_before_match="z"),
    block("x\r\ny\r\n", "new", append_if_not_found=True),
    block("<a>\nold\n</a> tail\n", "new", marker_start="<a>", marker_end="</a>"),
    block(M, "new", append_if_not_found=True, prepend_if_not_found=True),
    block(None, "new"),
    keyvalue("a=1\nb=2\n", key="a", value="3"),
    keyvalue("a=1\nb=2\n", key="a", value="1"),
    keyvalue("a = 1\n", key="a", value="3", separator=" = "),
    keyvalue("a 1\nab 2\n", key="a", value="3", separator=" "),
    keyvalue("  a=1\n", key="a", value="3"),
    keyvalue("#a=1\n", key="a", value="3", uncomment="#"),
    keyvalue("#a=1\n", key="a", value="1", uncomment="#"),
    keyvalue("# a=1\n", key="a", value="1", uncomment="# "),
    keyvalue("#a=1\na=2\n", key="a", value="9", uncomment="#"),
    keyvalue("b=1\n", key="a", value="3", append_if_not_found=True),
    keyvalue("b=1\n", key_values={"a": 1, "c": True}, prepend_if_not_found=True),
    keyvalue("b=1\n", key="a", value="3"),
    *[keyvalue("a=1\na=2\na=3\n", key="a", value="9", count=n) for n in (1, 2, 3, -1)],
    keyvalue("A=1\n", key="a", value="9", key_ignore_case=True),
    keyvalue("a=X\n", key="a", value="x", value_ignore_case=True),
    keyvalue("a=1\nb=2\nc=3\n", key="a", value="9", prune=True),
    keyvalue("a=1\nab=2\n", key_values={"a": 5, "ab": 6}),
    keyvalue("a=1\n", key_values={"a": 5, "d": None}, append_if_not_found=True),
    keyvalue(None, key="a", value="3", create_if_missing=True),
    keyvalue(None, key="a", value="3"),
    keyvalue(None, key="a", value="3", ignore_if_missing=True),
]


def main():
    root = tempfile.mkdtemp()
    opts = salt.config.minion_config(None)
    opts.update(cachedir=root, root_dir=root, file_client="local", file_roots={"base": [root]}, test=False, log_level="quiet", grains={})
    utils = salt.loader.utils(opts)
    states = salt.loader.states(opts, salt.loader.minion_mods(opts, utils=utils), utils, None)
    states["file.managed"]
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) and module.__file__.endswith("salt/states/file.py"):
            module.__instance_id__ = "1"
            module.__env__ = "base"
    answers = []
    for before, function, args in CASES:
        path = os.path.join(tempfile.mkdtemp(dir=root), "f")
        if before is not None:
            with open(path, "w", newline="") as out:
                out.write(before)
        try:
            result = states[function](name=path, **args)
            done, says = result["result"], result["comment"]
        except Exception as error:  # what Salt shows as a failed state
            done, says = False, str(error)
        after = None
        if os.path.exists(path):
            with open(path, newline="") as file:
                after = file.read()
        says = says.replace(path, "FILE").split("\n")[0]
        answers.append({"before": before, "function": function, "args": args, "after": after, "ok": bool(done), "says": says})
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "salt.json")
    with open(target, "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(a, ensure_ascii=False) for a in answers) + "\n]\n")


main()
