# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine has, for the verbs that look at it once: `check`, `explain`, `replay`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from npd6_xdp.core.altnames import with_names
from npd6_xdp.core.config import Config
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.table import Table
from npd6_xdp.core.vlan_filter import KeptBack, kept_back, unknown_trunks
from npd6_xdp.core.warnings import DefaultRoute
from npd6_xdp.system.ethtool import vlan_filter
from npd6_xdp.system.netlink.inspection import is_promiscuous
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.netlink.routes import RouteWatch
from npd6_xdp.system.sysctl import read


def link_facts(config: Config) -> dict[str, LinkFacts]:
    """The facts of this machine's interfaces, and the next hops of those that are the configuration's."""
    with closing(Netlink()) as netlink, closing(RouteWatch()) as routes:
        config = with_names(config, netlink.altnames())
        routes.watch(netlink.l3_interfaces(lambda name: bool(config.entries(name))))
        return netlink.facts(routes.of)


def vlan_filters(table: Table, links: Mapping[str, LinkFacts]) -> dict[str, KeptBack]:
    """What this machine's cards may keep back of the frames that a table has entries for, by the ports' names."""
    found = {each.name: kept_back(each, vlan_filter, is_promiscuous) for each in unknown_trunks(table, links)}
    return {name: each for name, each in found.items() if each is not None}


def roles_held(config: Config) -> frozenset[str]:
    """Those of a configuration's role addresses that this machine holds."""
    if not config.role_addresses:
        return frozenset()
    with closing(Netlink()) as netlink:
        return netlink.held(config.role_addresses)


def default_route(links: Mapping[str, LinkFacts]) -> DefaultRoute | None:
    """This machine's default route; None where there is none."""
    with closing(Router()) as router:
        found = router.default_route()
    names = {link.ifindex: link.name for link in links.values()}
    return None if found is None else DefaultRoute(names.get(found[0], ""), found[1])


def sysctl(key: str) -> str | None:
    """A sysctl of this machine below net.ipv6, as "conf/wan0/forwarding"; None if it isn't there."""
    return read(key)
