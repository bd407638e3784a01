"""What ask_salt.py asks: texts before, functions, arguments. A case is [text before or null, function, arguments]; the arguments of file.* never name
other files."""

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


FILE = [
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


SETTINGS = [
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
