# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor on what stands around a configuration: bridges that snoop, the kernel's own proxy, other answerers."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.doctor.finding import Level
from tests.netns.doctoring import Doctor, of
from tests.netns.test_doctor import BRIDGE, NO_BRIDGE, ROUTED, Fault, P, Scene, found_and_mended
from tests.netns.wire import configuration, until

SNOOPS = "ip link set br0 type bridge mcast_snooping 1 mcast_querier 1"
NAMED = "cp /bin/sleep $DIRECTORY/{0}; $DIRECTORY/{0} 600 >/dev/null 2>&1 &"
PROXY = "ip -6 neigh add proxy 2001:db8:1::7 dev wan0"

FAULTS = {
    "a bridge below the port that snoops": Fault(
        "snooping", Level.WARN, "the bridge br0, which it is on,",
        (*BRIDGE, SNOOPS, "ip link add link br0 name mv0 type macvlan", "ip link set mv0 up"),
        config=ROUTED.replace("wan0", "mv0"), after=NO_BRIDGE,
    ),
    "a via that snoops": Fault(
        "snooping", Level.NOTE, "via br0: it snoops MLD, with a querier", (*BRIDGE, SNOOPS),
        config=configuration(f"{P} neighbour via=br0"), after=NO_BRIDGE,
    ),
    "the kernel may proxy, and has nobody to proxy": Fault(
        "proxy_ndp", Level.NOTE, "wan0: it is 1, and nothing needs it",
        ("sysctl -w net.ipv6.conf.wan0.proxy_ndp=1",), config=ROUTED,
    ),
    "the kernel may proxy everywhere, and has nobody to proxy": Fault(
        "proxy_ndp", Level.NOTE, "it is 1 for all, and nothing needs it",
        ("sysctl -w net.ipv6.conf.all.proxy_ndp=1",), config=ROUTED,
    ),
    "the kernel proxies by entries of somebody's": Fault(
        "proxy_ndp", Level.WARN, "answers for 1 entry", ("sysctl -w net.ipv6.conf.wan0.proxy_ndp=1", PROXY),
        config=ROUTED, after=("ip -6 neigh del proxy 2001:db8:1::7 dev wan0",),
    ),
    "a rule for an address of this machine": Fault(
        "own_address", Level.WARN, "the kernel answers, and the rule never does",
        ("ip -6 address add 2001:db8:1::7/128 dev wan0 nodad",), config=configuration("2001:db8:1::7 static"), mends=0,
        after=("ip -6 address del 2001:db8:1::7/128 dev wan0",),
    ),
    "an address that a host has": Fault(
        "own_address", Level.NOTE, "2001:db8:1::42 is tentative, or somebody else has it",
        ("ip -6 address add 2001:db8:1::42/128 dev lan0",), config=ROUTED,
    ),
    "another npd6 runs": Fault("others", Level.WARN, "npd6 runs here", (NAMED.format("npd6"),), config=ROUTED),
    "odhcpd runs": Fault(
        "others", Level.NOTE, "odhcpd runs here", (NAMED.format("odhcpd"),), config=ROUTED, mends=0,
        after=("kill $(ip netns pids $(ip netns identify $$) | xargs -I% sh -c"
               " 'grep -qx odhcpd /proc/%/comm && echo %')",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """The lab with a doctor, and no daemon."""
    with Topology() as topology, Doctor(topology) as doctor:
        yield Scene(topology, RunningDaemon(topology, ROUTED), doctor)


@pytest.mark.parametrize("name", FAULTS)
def test_what_stands_around_is_found_and_what_is_printed_mends_it(scene: Scene, name: str) -> None:
    fault = FAULTS[name]
    found_and_mended(scene, fault)
    scene.file.write_text(fault.config)
    gone = [each for each in of(scene.look(fault.config), fault.check) if fault.words in each.message]
    assert gone == []


def test_bridges_that_keep_no_question_away_are_no_fault(scene: Scene) -> None:
    scene.sh(*BRIDGE, SNOOPS, "ip link set lan0 master br0")
    scene.file.write_text(configuration(f"{P} neighbour via=wan0").replace('"wan0"', '"lan0"', 1))
    found = [each for each in scene.look(ROUTED) if each.check == "snooping"]
    assert [(each.level, each.message) for each in found] == [
        (Level.OK, "lan0: the program sees what comes in before br0, which snoops MLD")
    ]
    scene.sh("ip link set br0 type bridge mcast_querier 0")
    scene.file.write_text(configuration(f"{P} neighbour via=br0"))
    (found,) = [[each for each in scene.look(ROUTED) if each.check == "snooping"]]
    assert [each.level for each in found] == [Level.OK]
    assert "while there is none" in found[0].message
    scene.sh(*NO_BRIDGE)


def test_a_filter_by_the_way_back_is_no_rule_that_certainly_drops(scene: Scene) -> None:
    scene.file.write_text(ROUTED)
    scene.sh("ip6tables-nft -t raw -A PREROUTING -m rpfilter -j DROP")
    found = of(scene.look(ROUTED), "firewall")
    assert {each.level for each in found} == {Level.NOTE}
    assert all("may be dropped by" in each.message and "-m rpfilter" in each.message for each in found), found
    assert any(each.mend for each in found), found
    scene.sh(*(mend for each in found for mend in each.mend))
    assert of(scene.look(ROUTED), "firewall") == []
    scene.sh("ip6tables-nft -t raw -F")


def test_levels_have_colours_on_a_terminal_that_can_and_for_who_wants_them(scene: Scene) -> None:
    scene.file.write_text(ROUTED)
    words = (sys.executable, "-m", "npd6_xdp", "doctor", "--config", str(scene.file))
    usual = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        master, slave = pty.openpty()
        process = scene.topology.popen("edge", *words, stdout=slave, env={**usual, **more})
        os.close(slave)
        text = b""
        while b" checks: " not in text:
            text += os.read(master, 65536)
        process.wait(120)
        os.close(master)
        assert (b"\x1b[32mok" in text) == coloured
        assert (b"\x1b[" in text) == coloured


def test_own_addresses_that_do_no_harm_are_told_with_who_answers(scene: Scene) -> None:
    scene.sh("ip -6 address add 2001:db8:1::7/128 dev wan0 nodad")
    scene.file.write_text(ROUTED)
    found = [each for each in scene.look(ROUTED) if each.check == "own_address"]
    assert [(each.level, each.message) for each in found] == [
        (Level.OK, "wan0: 2001:db8:1::7: the kernel answers, whatever rules say"),
        (Level.OK, "wan0: 2001:db8:1::1 (lan0): answered as there, under every method"),
    ]
    scene.sh("ip -6 address del 2001:db8:1::7/128 dev wan0")


def test_of_method_kernel_the_sysctl_is_the_daemons_business_until_it_runs(scene: Scene) -> None:
    scene.file.write_text(configuration(f"{P} kernel"))
    found = [each for each in scene.look(ROUTED) if each.check == "proxy_ndp"]
    assert [(each.level, each.message) for each in found] == [(Level.OK, "wan0: the daemon sets it, for method kernel")]
    assert until(lambda: of(scene.look(ROUTED), "proxy_ndp") == [])
