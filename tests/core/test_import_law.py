# SPDX-License-Identifier: GPL-2.0-or-later
"""DESIGN.md's import law, held by reading the imports: arrows point down only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "npd6_xdp"
MACHINE = {"bcc", "pyroute2", "socket", "prometheus_client", "fcntl", "mmap", "scapy"}
IMPURE = MACHINE | {"asyncio", "ctypes", "os", "pathlib", "subprocess", "threading", "time", "tempfile", "logging"}

ROOMS = {
    # room: (what of npd6_xdp it may import, what of MACHINE and IMPURE it may import)
    "core": ({"core"}, set()),
    # four rooms that speak rtnetlink stand on nlsocket, whoever hears of a BPF program's times on clock, and two that
    # have to do with frames on msghdr; of the datapath, what was compiled and where it is kept have rooms of their own
    "system": (
        {"core", *(f"system.{room}" for room in ("nlsocket", "clock", "msghdr", "compiled", "shelf"))},
        IMPURE - {"scapy"},
    ),
    "lab": ({"", "core", "lab", "system.datapath"}, IMPURE),
    "tools": (
        {"", "core", "tools", *(f"system.{room}" for room in ("datapath", "events", "routes", "rtnetlink", "testrun"))},
        IMPURE,
    ),
    "daemon": ({"", "core", "daemon", "system"}, (IMPURE - MACHINE) | {"socket"}),  # a socketpair wakes it on a signal
    "cli": ({"", "core"}, IMPURE - MACHINE),
    "__main__": ({"cli"}, set()),
    "__init__": (set(), set()),
}
LATER = {"cli": {"daemon", "tools", "lab"}}
"""What a room may import inside its functions, besides."""


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """The modules that a source imports, each with whether it does so at its top."""
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            assert node.module
            if node.module == "npd6_xdp" or (node.module.startswith("npd6_xdp.") and node.module.count(".") == 1):
                yield from ((f"{node.module}.{alias.name}", id(node) in top) for alias in node.names)
            else:
                yield node.module, id(node) in top


def allowed(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms if room) or (
        "" in rooms and "." not in name
    )


def offences(room: str, module: str, source: str) -> list[str]:
    """What a source imports that its room may not."""
    ours, machine = ROOMS[room]
    found = []
    for name, at_top in imports(source):
        first = name.partition(".")[0]
        if first == "npd6_xdp":
            inner = name.partition(".")[2]
            rooms = ours if at_top else ours | LATER.get(room, set())
            if inner.startswith("__"):
                continue
            if not allowed(inner, rooms - {""}) and not ("" in ours and inner in ("", "__version__")):
                found.append(f"{module} imports {name}")
        elif first in IMPURE and first not in machine:
            found.append(f"{module} imports {name}")
    return found


def modules() -> Iterator[tuple[str, str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield parts[0], ".".join(parts), path.read_text()


def test_every_import_points_down() -> None:
    found = [offence for room, module, source in modules() for offence in offences(room, module, source)]
    assert found == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "import socket"),
        ("core", "import os.path"),
        ("core", "def f():\n    import time"),
        ("core", "from npd6_xdp.system.netlink import Netlink"),
        ("core", "from npd6_xdp import daemon"),
        ("system", "from npd6_xdp.system.sender import Port"),
        ("system", "import scapy.all"),
        ("system", "from npd6_xdp import daemon"),
        ("daemon", "import bcc"),
        ("daemon", "from npd6_xdp.lab import story"),
        ("cli", "from npd6_xdp import daemon"),
        ("cli", "from npd6_xdp.system.netlink import Netlink"),
        ("cli", "def f():\n    from npd6_xdp.system.netlink import Netlink"),
        ("tools", "from npd6_xdp.daemon import Daemon"),
    ],
)
def test_an_import_that_points_up_or_sideways_is_found(room: str, source: str) -> None:
    assert len(offences(room, "bad", source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "import struct\nfrom npd6_xdp.core.verdict import Outcome"),
        ("system", "import bcc\nfrom npd6_xdp.core.errors import MachineError"),
        ("cli", "def f():\n    from npd6_xdp import daemon"),
    ],
)
def test_an_import_that_points_down_is_not(room: str, source: str) -> None:
    assert offences(room, "good", source) == []


def test_the_daemon_does_without_scapy_and_pyroute2() -> None:
    """They cost 11 and 12 MB (FACTS.md)."""
    words = "import sys, npd6_xdp.daemon; print({'scapy', 'bcc', 'pyroute2', 'asyncio'} & {*sys.modules} or [])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
