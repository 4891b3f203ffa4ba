# SPDX-License-Identifier: GPL-2.0-or-later
"""The sources that packages are made of, and the Debian package of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.roots import PROJECT

_PARTS = ("bpf", "npd6_xdp", "deploy", "docs", "pyproject.toml", "README.md", "MANIFEST.in", "CHANGELOG.md", "LICENSE")


def copy_tree(to: Path) -> None:
    """Copy them, as what is built of them leaves files beside them."""
    to.mkdir(exist_ok=True)
    for name in _PARTS:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, to)


def later_tree(to: Path) -> None:
    """Copy them, as those of a later version, with another reference configuration."""
    copy_tree(to)
    program = to / "npd6_xdp/__init__.py"
    program.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0rc1"', program.read_text()))
    with (to / "deploy/npd6-xdp.toml").open("a") as reference:
        reference.write("\n# a later version's word\n")


def build(tree: Path, out: Path, *options: str, **environment: str) -> Path:
    """The package that a tree's build.sh makes, with these options: its .deb or .dsc."""
    done = subprocess.run(
        [tree / "deploy/debian/build.sh", *options, out],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (built,) = out.glob("*.d[es][bc]")
    return built


def bpf_files() -> list[str]:
    """The XDP program and its headers, as paths below bpf/."""
    return [str(path.relative_to(PROJECT / "bpf")) for path in (PROJECT / "bpf").rglob("*") if path.is_file()]
