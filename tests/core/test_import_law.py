# SPDX-License-Identifier: GPL-2.0-or-later
"""The import law of docs/architecture.md, "Rooms", held by reading the imports: arrows point down only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "npd6_xdp"
MACHINE = {"bcc", "pyroute2", "socket", "prometheus_client", "fcntl", "mmap", "scapy"}
IMPURE = MACHINE | {"asyncio", "ctypes", "os", "pathlib", "subprocess", "threading", "time", "tempfile", "logging"}
PURE = {"socket": {"AF_INET6", "inet_pton"}}
"""What any room may import of these by name, since it touches nothing: from text to bytes, in a tenth of the time that
Python code takes."""

ROOMS = {
    # room: (what of npd6_xdp it may import, what of MACHINE and IMPURE it may import)
    "core": ({"core"}, set()),
    # of system itself, three small rooms: who hears of a BPF program's times stands on clock, who has packet sockets
    # on packets, who remembers sysctls on daemon_files; and in a wing, the rooms below
    "system": ({"core", "system.clock", "system.packets", "system.daemon_files"}, IMPURE - {"scapy"}),
    "lab": ({"", "core", "lab", "system.bpf.compiler", "system.bpf.others"}, IMPURE),
    "tools": (
        {
            *("", "core", "tools"),
            *(
                f"system.bpf.{room}"
                for room in ("ns_filter", "attach", "compiler", "events", "load", "others", "sizes", "testrun")
            ),
            *(
                f"system.netlink.{room}"
                for room in ("inspection", "links", "requests", "route_questions", "router", "routes", "survey")
            ),
            *(f"system.http.{room}" for room in ("passwords", "secured")),
            *(
                f"system.{room}"
                for room in (
                    "clock",
                    "echo",
                    "ethtool",
                    "firewall",
                    "other_daemons",
                    "privileges",
                    "stranger",
                    "sysctl",
                )
            ),
        },
        IMPURE,
    ),
    "daemon": ({"", "core", "compiling", "daemon", "system"}, IMPURE - MACHINE),
    "cli": ({"", "arguments", "verbs", "verbs_init", "verbs_see"}, IMPURE - MACHINE),
    "verbs": ({"", "arguments", "core"}, IMPURE - MACHINE),
    "verbs_init": ({"", "arguments", "core"}, IMPURE - MACHINE),
    "verbs_see": ({"arguments", "core", "verbs"}, IMPURE - MACHINE),
    "foreground": ({"core"}, IMPURE - MACHINE),
    "compiling": (
        {"core", "system.aside", "system.cgroup", "system.bpf.compiler", "system.bpf.load"},
        IMPURE - MACHINE,
    ),
    "ndppd": ({"", "core"}, IMPURE - MACHINE),
    "arguments": ({"core"}, IMPURE - MACHINE),
    "__main__": ({"cli"}, set()),
    "__init__": (set(), set()),
}
WINGS = {
    # wing of system: its rooms from the top down; each may import those that stand behind it, and no other wing's
    "bpf": (
        "ns_filter",
        "counted",
        "trace",
        "budgets",
        "answered",
        "recent",
        "program",
        "attach",
        "refusals",
        "others",
        "relay",
        "sizes",
        "load",
        "pack",
        "port_entries",
        "table_writes",
        "counters",
        "maps",
        "early_maps",
        "compiler",
        "compiled",
        "shelf",
        "events",
        "taps",
        "testrun",
    ),
    "netlink": (
        "links",
        "neighbours",
        "host_routes",
        "routes",
        "route_questions",
        "router",
        "inspection",
        "requests",
        "survey",
        "dumps",
        "nlsocket",
    ),
    "http": ("endpoint", "secured", "passwords", "site", "metrics", "families"),
}
LATER = {room: {"daemon", "tools", "lab"} for room in ("cli", "foreground", "verbs_init", "verbs_see")}
LATER["foreground"] |= {"compiling"}
LATER |= {"verbs": {"daemon", "foreground", "lab", "tools"}, "ndppd": {"cli", "foreground", "tools", "verbs"}}
"""What a room may import inside its functions, besides."""


@cache
def statements(source: str) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The imports of a source, each with whether it stands at its top."""
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    return [(node, id(node) in top) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """The modules that a source imports, each with whether it does so at its top."""
    for node, at_top in statements(source):
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_top) for alias in node.names)
        elif not PURE.get(node.module or "", set()).issuperset(alias.name for alias in node.names):
            assert node.level == 0, "absolute imports only"
            assert node.module
            is_wing = node.module.removeprefix("npd6_xdp.system.") in WINGS
            if node.module == "npd6_xdp" or is_wing or re.fullmatch(r"npd6_xdp\.\w+", node.module):
                yield from ((f"{node.module}.{alias.name}", at_top) for alias in node.names)
            else:
                yield node.module, at_top


def allowed(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms if room) or (
        "" in rooms and "." not in name
    )


def below(module: str) -> set[str]:
    """What a room of a wing may import of its wing."""
    match module.split("."):
        case ["system", wing, room] if wing in WINGS:
            order = WINGS[wing]
            return {f"system.{wing}.{each}" for each in order[order.index(room) + 1 :]} if room in order else set()
    return set()


def offences(room: str, module: str, source: str) -> list[str]:
    """What a source imports that its room may not."""
    ours, machine = ROOMS[room]
    ours = ours | below(module)
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


def test_the_law_names_each_room_of_each_wing() -> None:
    """A room that it doesn't name could import nothing of its wing, and nobody could import it."""
    found: dict[str, set[str]] = {}
    for path in sorted((PACKAGE / "system").glob("*/*.py")):
        found.setdefault(path.parent.name, set()).add(path.stem)
    assert found == {wing: {"__init__", *rooms} for wing, rooms in WINGS.items()}


def test_within_a_wing_imports_go_down_only_and_wings_never_import_each_other() -> None:
    for wing, (top, *_, bottom) in WINGS.items():
        for other, (room, *_) in WINGS.items():
            down = offences("system", f"system.{wing}.{top}", f"from npd6_xdp.system.{other}.{room} import it")
            assert bool(down) == (wing != other or room == top), f"{wing}.{top} imports {other}.{room}"
        assert offences("system", f"system.{wing}.{top}", f"from npd6_xdp.system.{wing} import {bottom}") == []
        assert offences("system", f"system.{wing}.{bottom}", f"from npd6_xdp.system.{wing}.{top} import it")
        assert offences("system", "system.sender", f"from npd6_xdp.system.{wing}.{bottom} import it")


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("core", "import socket"),
        ("core", "import os.path"),
        ("core", "from socket import inet_pton, socket"),
        ("core", "def f():\n    import time"),
        ("core", "from npd6_xdp.system.netlink.links import Netlink"),
        ("core", "from npd6_xdp import daemon"),
        ("system", "from npd6_xdp.system.sender import Port"),
        ("system", "import scapy.all"),
        ("system", "from npd6_xdp import daemon"),
        ("daemon", "import bcc"),
        ("daemon", "import socket"),
        ("daemon", "from npd6_xdp.lab import story"),
        ("cli", "from npd6_xdp import daemon"),
        ("cli", "from npd6_xdp.system.netlink.links import Netlink"),
        ("cli", "def f():\n    from npd6_xdp.system.netlink.links import Netlink"),
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
    """They cost 11 and 12 MB (docs/design.md)."""
    words = "import sys, npd6_xdp.daemon; print({'scapy', 'bcc', 'pyroute2', 'asyncio'} & {*sys.modules} or [])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_scapy_is_imported_by_probe_replay_and_the_lab_alone() -> None:
    """So the daemon starts where there is none: tests/netns/test_attach.py has one that does."""
    where = {module for _, module, source in modules() for name, _ in imports(source) if name.startswith("scapy")}
    assert {"tools.probe", "tools.replay"} < where
    assert [module for module in where - {"tools.probe", "tools.replay"} if not module.startswith("lab.")] == []


def test_no_import_leads_back_to_where_it_began() -> None:
    """Not by way of a function either."""
    sources = {f"npd6_xdp.{module}".removesuffix(".__init__"): source for _, module, source in modules()}
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        for node, _ in statements(source):
            if isinstance(node, ast.ImportFrom) and node.module in sources:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[module] |= names & sources.keys() or {node.module}
    assert sum(map(len, graph.values())) > len(graph)
    TopologicalSorter(graph).prepare()  # raises CycleError
