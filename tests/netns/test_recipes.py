# SPDX-License-Identifier: GPL-2.0-or-later
"""Each page of docs/recipes: its own configuration and commands, a network around it, a ping from another kernel."""

from __future__ import annotations

import re

import pytest

from npd6_xdp.core.explain import table_text
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.recipes import PAGES, SCENES, built, has, names, page, run

HERE = [name for name, scene in SCENES.items() if has(scene.needs)]
"""Those that this machine's kernel has the devices for; deploy/kernels.sh boots kernels that have the rest."""

every = pytest.mark.parametrize("name", names())


def test_each_page_has_a_scene_and_stands_in_the_index() -> None:
    assert names() == sorted(SCENES)
    index = (PAGES / "README.md").read_text()
    assert set(re.findall(r"\]\((\w[\w-]*)\.md\)", index)) == set(names())
    assert {name for name in names() if name not in HERE} <= {"bond", "vlan-trunk", "vrf"}


@every
def test_a_page_has_a_configuration_commands_and_a_way_to_see_that_it_works(name: str) -> None:
    its = page(name)
    assert its.config.interfaces
    assert table_text(its.config, {})
    assert {interface.name for interface in its.config.interfaces} <= {SCENES[name].port, SCENES[name].lan, "bond0"}
    assert its.pinged
    assert all(re.match(r"(ip|sysctl|ethtool|docker|incus|wg) ", step) for step in its.setup), its.setup
    text = (PAGES / f"{name}.md").read_text()
    assert "npd6-xdp status" in text
    method = re.search(rf"\({re.escape(name)}\.md\) \| `(\w+)`", (PAGES / "README.md").read_text())
    assert method, "the index says the method"
    assert {rule.method for interface in its.config.interfaces for rule in interface.rules} == {method[1]}
    if "neighbour" in its.configuration:
        assert "operation.md#the-neighbour-table" in text, "it is small by default"


@pytest.mark.needs_table
@pytest.mark.parametrize("name", HERE)
def test_a_page_s_configuration_and_commands_make_its_addresses_reachable(topology: Topology, name: str) -> None:
    seen = run(topology, name)
    assert seen.wrong(SCENES[name]) == [], seen
    assert all(seen.before.values()) == SCENES[name].routed


def test_the_routed_64_works_where_the_upstream_asks_after_all(topology: Topology) -> None:
    """hetzner.md: its configuration is right in either case."""
    with built(topology, "hetzner") as (place, its):
        place.run("upstream", "ip -6 route del 2001:db8:1::/64", "ip -6 route add 2001:db8:1::/64 dev eth0")
        (address,) = its.pinged
        assert not place.pings(address, 0.0)
        with RunningDaemon(topology, its.configuration):
            assert place.pings(address)


@pytest.mark.parametrize(("name", "without"), [("anyip", "route add local"), ("link-local-filter", "neigh replace")])
def test_a_command_that_a_page_says_is_needed_is(topology: Topology, name: str, without: str) -> None:
    assert not any(run(topology, name, without=without, patience=1.0).reached.values())


def test_forwarding_cuts_off_the_default_route_unless_accept_ra_is_2(topology: Topology) -> None:
    with pytest.raises(AssertionError, match="cut it off"), built(topology, "slaac", without="accept_ra"):
        pass


def test_an_answer_from_a_link_local_address_is_what_the_filter_drops(topology: Topology) -> None:
    """link-local-filter.md: all depends on na_source."""
    configuration = page("link-local-filter").configuration.replace('"target"', '"interface"')
    assert not any(run(topology, "link-local-filter", configuration, patience=1.0).reached.values())
