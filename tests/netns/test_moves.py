# SPDX-License-Identifier: GPL-2.0-or-later
"""From one way to attach to another by a reload, with not one solicitation unanswered, and none answered twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from npd6_xdp.daemon.attaching import MOST_BY_AUTO
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.bench.many_ports import CONFIGURATION, make
from tests.netns.others import Others, at_tc
from tests.netns.test_reload import Stream, reload, stream
from tests.netns.wire import configuration, until

Start = Callable[..., RunningDaemon]

OURS, FOREIGN = "ns_filter_tc", "foreign_tc"
PLACES = {  # what is written: the mode of XDP, and who is at tc
    ("native", "first"): ("native", [FOREIGN]),
    ("generic", "first"): ("generic", [FOREIGN]),
    ("tc", "first"): (None, [OURS, FOREIGN]),
    ("tc", "last"): (None, [FOREIGN, OURS]),
    ("auto", "first"): (None, [OURS, FOREIGN]),
    ("auto", "last"): (None, [FOREIGN, OURS]),
}


def each_pair() -> list[tuple[str, str]]:
    """A way from each place to each other one, and back to the first."""
    left = {place: [other for other in PLACES if other != place] for place in PLACES}
    path, stack = list[tuple[str, str]](), [next(iter(PLACES))]
    while stack:
        if others := left[stack[-1]]:
            stack.append(others.pop())
        else:
            path.append(stack.pop())
    return path[::-1]


def text(place: tuple[str, str], datapath: str) -> str:
    attach, order = place
    return configuration(attach=f'"{attach}"', tc_order=f'"{order}"', datapath=f'"{datapath}"', events_per_source="0")


VLAN = '[[interface]]\nname = "wan0"\nvlan = 100\n[[interface.rule]]\nprefix = "2001:db8:9::/64"\nmethod = "static"\n'


def go_on(asked: Stream) -> bool:
    """Whether some more have been asked since."""
    sent = asked.sent
    return until(lambda: asked.sent > sent + 20)


def test_a_way_goes_from_each_place_to_each_other() -> None:
    pairs = [*pairwise(each_pair())]
    assert len(pairs) == len({*pairs}) == len(PLACES) * (len(PLACES) - 1)


@pytest.mark.parametrize("more", ["", VLAN], ids=["untagged", "and a VLAN"])
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_from_each_place_to_each_other_one_each_solicitation_is_answered_once(
    topology: Topology, daemon: Start, datapath: str, more: str
) -> None:
    """With a VLAN, generic XDP holds each until a first tag is seen: it goes on, and the tap hands it up."""
    topology.xdp_pass("upstream", "eth0")  # so that native mode delivers
    first, *others = each_pair()
    with Others(topology, xdp=False):
        running = daemon(text(first, datapath) + more)
        with stream(topology, 2_000) as asked:
            assert go_on(asked)
            for place in others:
                reload(running, text(place, datapath) + more)
                assert (topology.xdp_mode("edge", "wan0"), at_tc(topology)) == PLACES[place], place
                assert go_on(asked)
        assert asked.steady()
        assert asked.all_answered_once()
    assert "Traceback" not in running.log
    assert not re.search("(?m)^npd6-xdp: (warning|error): wan0", running.log)


MANY = MOST_BY_AUTO + 8
GAP = re.compile("warning: wan0, sub0, .* more: no program was there for up to ([0-9.]+) ms, while the mode changed: ")


@pytest.fixture
def many(topology: Topology) -> Iterator[Callable[[str], str]]:
    """The configuration of wan0 and so many ports besides, by how all of them are attached."""
    topology.xdp_pass("upstream", "eth0")
    make(topology, MANY)
    beside = CONFIGURATION.format(datapath="hybrid")
    yield (
        lambda attach: text((attach, "first"), "hybrid") + beside.replace("datapath", f'attach = "{attach}"\ndatapath')
    )
    topology.xdp_pass_end()


def test_many_ports_go_to_tc_and_back_with_no_solicitation_unanswered(
    topology: Topology, daemon: Start, many: Callable[[str], str]
) -> None:
    running = daemon(many("native"))
    with stream(topology, 2_000) as asked:
        for attach in ("tc", "generic", "tc", "native"):
            reload(running, many(attach))
            assert go_on(asked)
    assert asked.steady()
    assert asked.all_answered_once()
    assert "warning" not in running.log


def test_many_ports_from_native_to_generic_have_a_gap_that_the_log_tells(
    topology: Topology, daemon: Start, many: Callable[[str], str]
) -> None:
    """By tc in between, each would take the kernel a hundred times as long."""
    running = daemon(many("native"))
    with stream(topology, 2_000, unanswered=True) as asked:
        for attach in ("generic", "native") * 3:
            reload(running, many(attach))
            assert go_on(asked)
    assert until(lambda: len(GAP.findall(running.log)) == 6), running.log
    longest, missed = [float(found) for found in GAP.findall(running.log)], asked.sent - len(asked.answered)
    print(f"for up to {longest} ms there was no program; {missed} unanswered")
    assert missed <= 3 * 2_000 * sum(longest) / 1_000 + 100, "wan0's gaps are none of the longest, mostly"
    reload(running, text(("native", "first"), "hybrid"))
    reload(running, text(("generic", "first"), "hybrid"))
    assert len(GAP.findall(running.log)) == 6, "a few go by tc, where all are answered"


def test_a_change_that_another_port_refuses_leaves_none_unanswered_either(topology: Topology, daemon: Start) -> None:
    """It has gone to its new way by then, and goes back."""
    topology.xdp_pass("upstream", "eth0")
    with topology.inside("edge"), Others(topology, tc=False, interface="lan0"):
        running = daemon(text(("generic", "first"), "hybrid"))
        taken = configuration(attach='"generic"').replace('"wan0"', '"lan0"')
        with stream(topology, 2_000) as asked:
            for attach, order in PLACES:
                running.write(text((attach, order), "hybrid") + taken)
                refused = running.command("reload")
                assert refused.returncode == 1
                assert "lan0: another XDP program is attached in generic mode" in refused.stderr
                assert until(lambda: (topology.xdp_mode("edge", "wan0"), at_tc(topology)) == ("generic", []))
                assert go_on(asked)
        assert asked.steady()
        assert asked.all_answered_once()
    assert "Traceback" not in running.log
    assert running.log.count("wan0: XDP attached ") == 1, "of what came to nothing, nothing is told"
