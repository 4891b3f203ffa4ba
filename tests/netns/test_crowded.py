# SPDX-License-Identifier: GPL-2.0-or-later
"""More ports under `auto` than it puts at tc: one that is generic for that goes there when it may, or has to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from npd6_xdp.daemon.attaching import MOST_BY_AUTO
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.bench.many_ports import CONFIGURATION, make
from tests.netns.others import at_tc
from tests.netns.test_hidden_tags import tag_beside, ups
from tests.netns.test_reload import reload, stream
from tests.netns.wire import Wire, configuration, on_edge, question, says, until

Start = Callable[..., RunningDaemon]

OTHERS = CONFIGURATION.format(datapath="hybrid")
REASON = "native XDP_TX is lost on veth unless the peer has a program, too"
CROWDED = f"; not native: {REASON}; {MOST_BY_AUTO} ports are at tc already, and each takes the kernel"
AT_TC = "wan0: attached at tc ingress, datapath "


def sits(topology: Topology) -> tuple[str | None, list[str]]:
    return topology.xdp_mode("edge", "wan0"), at_tc(topology)


@pytest.fixture
def crowded(topology: Topology, daemon: Start) -> Callable[[str], RunningDaemon]:
    """Start with as many ports as `auto` puts at tc; then wan0 comes, as a configuration has it."""

    def start(text: str) -> RunningDaemon:
        make(topology, MOST_BY_AUTO)
        running = daemon(OTHERS)
        reload(running, text + OTHERS)
        assert says(running, CROWDED)
        assert sits(topology) == ("generic", [])
        return running

    return start


def test_it_goes_to_tc_once_another_port_has_gone_with_no_solicitation_unanswered(
    topology: Topology, crowded: Callable[[str], RunningDaemon]
) -> None:
    running = crowded(configuration(events_per_source="0"))
    with stream(topology, 2_000) as asked:
        assert until(lambda: asked.sent > 20)
        on_edge(topology, "link del sub0")
        assert says(running, AT_TC)
        assert sits(topology) == (None, ["ns_filter_tc"])
        sent = asked.sent
        assert until(lambda: asked.sent > sent + 20)
    assert asked.steady()
    assert asked.all_answered_once()
    assert "no program was there" not in running.log


def test_it_goes_to_tc_where_a_tag_is_seen_beside_a_frame_however_many_are_there(
    topology: Topology, crowded: Callable[[str], RunningDaemon]
) -> None:
    running = crowded(configuration() + configuration("2001:db8:2::/64 static", vlan="100"))
    with Wire(topology) as wire, tag_beside(topology, "eth0") as hidden:
        assert wire.ask(question("2001:db8:1::9")) is not None
        assert until(lambda: hidden.ask(question("2001:db8:2::9"), 0.3) is not None), running.log
        assert sits(topology) == (None, ["ns_filter_tc"])
        assert hidden.ask(question("2001:db8:1::9"), 0.3) is None, "no rule of VLAN 100's"
        assert wire.ask(question("2001:db8:1::9")) is not None, "it isn't silent"
    assert says(running, AT_TC)
    assert set(ups(running).values()) == {1.0}
    assert "beside the frames" not in running.log
