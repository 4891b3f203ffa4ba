# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the Debian package's autopkgtests (debian/tests) on the source and binary package of this tree, in a throwaway
root with a systemd of its own: python -m tests.package.autopkgtest [TEST...]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.roots import PROJECT, RootError, fresh_root

NEEDS = ("python3-bpfcc", "python3-prometheus-client", "python3-scapy", "systemd-sysv")
"""What the package and its tests take, installed before, as the root has no network of its own."""
TOOLS = ("autopkgtest", "dpkg-dev", "iproute2", "iputils-ping", "ndisc6", "tcpdump", "dbus")
WHERE = Path("/root/packages")


def main(tests: list[str]) -> int:
    """Build both, and run all tests, or those that are named; returns the exit status of autopkgtest (1)."""
    with TemporaryDirectory() as name:
        for option in ((), ("--source",)):
            subprocess.run([PROJECT / "deploy/debian/build.sh", *option, name], check=True)
        try:
            return _run(Path(name), tests)
        except RootError as error:
            print(f"autopkgtest: {error}", file=sys.stderr)
            return 1


def _run(packages: Path, tests: list[str]) -> int:
    with fresh_root() as base:
        base.install(*NEEDS, *TOOLS)
        with fresh_root(over=base, boot=True) as root:
            (root.path / "etc/apt/apt.conf.d/95locks").write_text('Debug::NoLocking "true";\n')  # archives are shared
            (root.path / "etc/apt/sources.list").write_text("")
            shutil.copytree(packages, root.path / str(WHERE)[1:])
            # what isolates is the root; null doesn't know that it is in one
            words = ["autopkgtest", "--ignore-restrictions=isolation-container,breaks-testbed", "--no-built-binaries"]
            words += [f"--test-name={test}" for test in tests]
            words += [str(WHERE / path.name) for path in packages.iterdir() if path.suffix in (".deb", ".dsc")]
            done = subprocess.run(root.words(*words, "--", "null"), stdin=subprocess.DEVNULL, check=False)
    return done.returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.package.autopkgtest", description=__doc__)
    parser.add_argument("tests", metavar="TEST", nargs="*", help="one of debian/tests (default: all)")
    sys.exit(main(parser.parse_args().tests))
