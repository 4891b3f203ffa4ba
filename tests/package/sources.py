# SPDX-License-Identifier: GPL-2.0-or-later
"""The sources that packages are made of."""

from __future__ import annotations

import shutil
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


def bpf_files() -> list[str]:
    """The XDP program and its headers, as paths below bpf/."""
    return [str(path.relative_to(PROJECT / "bpf")) for path in (PROJECT / "bpf").rglob("*") if path.is_file()]
