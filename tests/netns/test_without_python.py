# SPDX-License-Identifier: GPL-2.0-or-later
"""A unit that has failed for good takes everything away, also where what is broken is the Python that would do that."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.sysctl import PROXY_DELAY, PROXY_NDP, Memory
from tests.netns.handovers import CONFIG, PINGED, PROXIED, make_known, set_out
from tests.netns.service import SYSTEMD, UnderSystemd, left
from tests.netns.wire import Wire, on_edge, until

CLEAN = SYSTEMD / "clean"
SAID = "npd6-xdp: taken away without Python: host routes and proxy entries; put back: sysctls\n"


@pytest.mark.needs_table
@pytest.mark.parametrize(
    ("instead", "why"),
    [("/bin/false", "4 starts in a row ended too early"), ("/etc/hostname", "")],
    ids=["fails", "isn't a program"],
)
def test_nothing_stays_of_a_service_whose_python_is_broken_for_good(topology: Topology, instead: str, why: str) -> None:
    """By systemd's 203, which a program that isn't there is, too, at once; other statuses by the fourth start."""
    set_out(topology)
    before = left(topology)
    with UnderSystemd(topology, CONFIG) as service, Wire(topology) as wire:
        make_known(topology, wire)
        assert (left(topology)["routes"], left(topology)["proxies"]) == ([PINGED], [PROXIED])
        python = str(Path(sys.executable).resolve())
        assert service.enter("mount", "--bind", instead, python).returncode == 0
        service.send(signal.SIGKILL)
        assert service.comes_to(ActiveState="failed")
        assert why in service.log
        assert until(lambda: SAID in service.log)
        assert left(topology) == before
        assert service.comes_to(NFileDescriptorStore="0")


# --- the script itself -----------------------------------------------------------------------------------------


def clean(topology: Topology, directory: Path) -> tuple[int, str]:
    """Its exit status, and what it says."""
    done = topology.run("edge", str(CLEAN), str(directory))
    assert done.stdout == ""
    return done.returncode, done.stderr


@contextmanager
def remembering(topology: Topology, directory: Path, values: list[tuple[str, int, str]]) -> Iterator[None]:
    """A daemon of the edge's lives within, and remembers that sysctls were so; then it is dead."""
    with topology.inside("edge"):
        memory = Memory(directory)
    memory.write(values)
    yield
    memory.close(leave=True)


def test_only_what_bears_our_number_goes_and_sysctls_get_the_oldest_daemons_values(
    topology: Topology, tmp_path: Path
) -> None:
    before = left(topology)
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    gone, ifindex = 1 << 30, link["ifindex"]
    for line in (
        "route add 2001:db8:1::42 dev lan0 proto 136",
        "route add 2001:db8:1::43 dev lan0 proto 136 table 77",
        "route add 2001:db8:1::44 dev lan0 proto static",
        "route add 2001:db8:5::/64 dev lan0 proto 136",
        "neigh add proxy 2001:db8:2::7 dev wan0 proto 136",
        "neigh add proxy 2001:db8:2::8 dev wan0",
    ):
        on_edge(topology, line)
    with remembering(topology, tmp_path, [(PROXY_DELAY, ifindex, "32"), (PROXY_NDP, ifindex, "1")]):
        pass
    (older,) = tmp_path.glob("sysctl-*")
    later = older.with_name(older.name[:-1] + "_")
    later.write_text(f'[["neigh/{{}}/proxy_delay", {ifindex}, "0"], ["conf/{{}}/forwarding", {ifindex}, "1"]]')
    odd = [[PROXY_NDP, gone, "1"], [PROXY_NDP, ifindex, "1\nx"], ["../../../x", 0, "1"], [PROXY_NDP, "all", "1"]]
    older.with_name(older.name[:-1] + "odd").write_text(json.dumps(odd))
    for name in ("remembered", "interfaces"):
        (tmp_path / name).touch()
    alien = tmp_path / "sysctl-1-1-a.b"  # a name that no daemon has
    alien.write_text(later.read_text())

    assert clean(topology, tmp_path) == (0, SAID)
    found = left(topology)
    assert found == before | {"routes": ["2001:db8:5::/64"], "proxies": ["2001:db8:2::8"]} | {
        "conf/wan0/proxy_ndp": "1",
        "neigh/wan0/proxy_delay": "32",
    }
    assert topology.ip("edge", "-6", "route", "show", "2001:db8:1::44")
    assert not topology.ip("edge", "-6", "route", "show", "table", "77")
    assert [*tmp_path.iterdir()] == [alien]


def test_while_another_daemon_lives_all_stays_and_of_several_namespaces_the_sysctls_do(
    topology: Topology, tmp_path: Path
) -> None:
    on_edge(topology, "route add 2001:db8:1::42 dev lan0 proto 136")
    there = left(topology)
    assert there["routes"]
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    with remembering(topology, tmp_path, [(PROXY_NDP, link["ifindex"], "1")]):
        status, said = clean(topology, tmp_path)
        assert (status, left(topology)) == (1, there)
        assert said.startswith("npd6-xdp: warning: another daemon runs: ")
    (tmp_path / "sysctl-1-2-3").write_text(f'[["conf/{{}}/proxy_ndp", {link["ifindex"]}, "1"]]')
    status, said = clean(topology, tmp_path)
    assert (status, left(topology)) == (1, there | {"routes": []})
    assert "in several network namespaces" in said
