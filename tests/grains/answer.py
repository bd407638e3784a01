#!/usr/bin/env python3
"""Asks real Salt what it makes of recorded release files: answer.py releases.json rewrites the `grains` of each entry with what the code of
Salt 3008.5 says where these files, and no others of their kind, are the host's.

SALT_VENV names the virtual environment with Salt."""
import builtins, json, os, platform, sys, tempfile

VENV = os.environ.get("SALT_VENV", "/var/cache/basalt-oracle/venv")
if os.path.realpath(sys.prefix) != os.path.realpath(VENV):
    os.execv(VENV + "/bin/python", [VENV + "/bin/python"] + sys.argv)
import distro.distro
import salt.grains.core as core

ROOT = None
RELEASE = ("/etc/os-release", "/usr/lib/os-release", "/etc/lsb-release", "/etc/SuSE-release", "/etc/altlinux-release", "/etc/centos-release",
           "/etc/debian_version")
real_open, real_isfile = builtins.open, os.path.isfile


def below(path):
    return ROOT + path if ROOT and path in RELEASE else path


builtins.open = lambda path, *a, **k: real_open(below(path), *a, **k)
os.path.isfile = lambda path: real_isfile(below(path))


def linux_distribution():
    return distro.name(), distro.version(best=True), distro.codename()  # as Salt's, which remembers its first answer


def grains():
    # As on a host without the command lsb_release and its Python module, which are rarely installed.
    distro.distro._distro = distro.LinuxDistribution(include_lsb=False, include_uname=False, root_dir=ROOT)
    core._linux_distribution = linux_distribution
    found = core._linux_distribution_data()
    if found.get("osrelease"):
        found.update(core._osrelease_data(found["os"], found["osfullname"], found["osrelease"]))
    return found


cases = json.load(real_open(sys.argv[1]))
for case in cases:
    with tempfile.TemporaryDirectory() as root:
        for path, text in case["files"].items():
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            real_open(root + path, "w").write(text)
        os.makedirs(root + "/etc", exist_ok=True)
        ROOT = root
        case["grains"] = json.loads(json.dumps(grains()))
        ROOT = None
with real_open(sys.argv[1], "w") as out:
    json.dump(cases, out, indent=1, ensure_ascii=False, sort_keys=True)
    out.write("\n")
