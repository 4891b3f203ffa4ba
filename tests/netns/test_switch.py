# SPDX-License-Identifier: GPL-2.0-or-later
"""A larger program takes over while the interfaces change; one moves from XDP to tc and back."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.build import build
from npd6_xdp.core.config import Limits
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.tools.facts import link_facts
from tests.datapath.harness import successor, taken_over
from tests.netns.others import at_tc
from tests.netns.test_reload import stream
from tests.netns.wire import configuration, on_edge, until

Attached = tuple[NsFilter, Table, dict[str, int]]


@pytest.fixture
def attached(topology: Topology) -> Iterator[Attached]:
    """The program on wan0 and on wan1, in this process."""
    on_edge(topology, "link add wan1 type veth", "link set wan1 up")
    config = parse(configuration(), "test")
    with topology.inside("edge"):
        table = build(config, link_facts(config))
        indexes = {name: socket.if_nametoindex(name) for name in ("wan0", "wan1")}
        with closing(NsFilter(table, Limits())) as ns_filter:
            for name in ("wan1", "wan0"):
                ns_filter.attach(indexes[name], name, AttachMode.GENERIC)
            ns_filter.apply(table)
            yield ns_filter, table, indexes


def program_on(topology: Topology, name: str) -> int:
    (found,) = topology.ip("edge", "link", "show", "dev", name)
    return int(found["xdp"]["prog"]["id"])


def descriptors() -> list[str]:
    gc.collect()  # what is left of tests before
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(fd.readlink()))
    return sorted(name for name in found if "bpf" in name)


def test_an_interface_that_has_just_been_deleted_does_not_stop_it(topology: Topology, attached: Attached) -> None:
    ns_filter, table, indexes = attached
    before = program_on(topology, "wan0")
    open_before = descriptors()
    on_edge(topology, "link del wan1")
    taken_over(ns_filter, table, Limits(neighbours=70_000))
    assert program_on(topology, "wan0") != before
    assert ns_filter.attached_to(indexes["wan0"])
    assert not ns_filter.attached_to(indexes["wan1"])
    ns_filter.retire()
    assert len(descriptors()) == len(open_before) - 1, "the link of what was deleted is gone, and nothing more"


def test_from_xdp_to_tc_and_back_each_solicitation_is_answered_once_and_counted_once(
    topology: Topology, attached: Attached
) -> None:
    """Whichever comes is there before the other goes, and what XDP answers doesn't reach tc."""
    ns_filter, table, indexes = attached
    moves = 0
    with stream(topology, 2_000) as asked:
        for _ in range(12):
            for mode in (AttachMode.TC, AttachMode.GENERIC):
                sent = asked.sent
                with topology.inside("edge"):
                    assert not ns_filter.attach(indexes["wan0"], "wan0", mode)
                assert bool(at_tc(topology)) is (mode is AttachMode.TC)
                assert (topology.xdp_mode("edge", "wan0") == "generic") is (mode is AttachMode.GENERIC)
                moves += 1
                assert until(lambda sent=sent: asked.sent > sent + 20)  # type: ignore[misc]
    assert moves == 24
    assert asked.steady()
    assert asked.all_answered_once()
    counted = [ns_filter.entry_counters(entry).outcomes[Outcome.ANSWERED_XDP] for entry in table.entries]
    assert sum(counted) == asked.sent


def test_where_one_interface_refuses_the_old_program_stays_on_all(topology: Topology, attached: Attached) -> None:
    ns_filter, table, _ = attached
    old, before = ns_filter.program, program_on(topology, "wan0")
    open_before = descriptors()
    ns_filter._links._holds(999, os.open("/dev/null", os.O_RDONLY), AttachMode.GENERIC)  # no link at all
    program = successor(ns_filter, table, Limits(neighbours=70_000))
    with pytest.raises(MachineError, match="can't replace our program"):
        ns_filter.switch(program, table)
    ns_filter.give_up(program)
    assert ns_filter.program is old
    assert program_on(topology, "wan0") == before
    assert descriptors() == open_before
