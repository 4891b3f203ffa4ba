# SPDX-License-Identifier: GPL-2.0-or-later
"""What doctor reads, and what it makes of machines that are large, or that route by more than one table."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address
from itertools import count
from pathlib import Path

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.survey import Way
from npd6_xdp.core.warnings import DefaultRoute, Receiver
from npd6_xdp.tools.doctor import forwarding, others, reading, running
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Level
from tests.tools.doctor.test_checks import facts, of

ROUTED = '[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "route"\n'


def answering(path: Path, answer: bytes | None) -> socket.socket:
    """A control socket at which that is answered; None: nothing ever."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        client, _ = server.accept()
        client.recv(1 << 16)
        client.sendall(answer or b"")
        client.close()

    if answer is not None:
        threading.Thread(target=serve, daemon=True).start()
    return server


def test_a_daemon_that_is_there_and_says_nothing_is_no_daemon_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PATIENCE", 0.2)
    with answering(tmp_path / "s", None):
        status, why, is_silent = reading._status(tmp_path / "s")
    assert (status, is_silent) == (None, True)
    (found,) = running.checks(replace(facts(), no_daemon=why, is_silent=is_silent))
    assert found.level is Level.WARN
    assert "doesn't answer" in found.message
    assert reading._status(tmp_path / "nobody")[2] is False


def test_a_status_of_another_version_is_told_and_not_stumbled_over(tmp_path: Path) -> None:
    with answering(tmp_path / "s", json.dumps({"pid": 7, "interfaces": []}).encode()):
        status, why, is_silent = reading._status(tmp_path / "s")
    assert (status, is_silent) == (None, False)
    assert "lacks build, configuration, last_reload" in why


def test_a_default_route_of_another_table_is_one() -> None:
    route = Way(Prefix(0, 0), ((2, IPv6Address("fe80::1")),))
    for table, level in ((77, Level.OK), (254, Level.WARN)):
        found = of(forwarding.checks(replace(facts(), routes=[route._replace(table=table)])), "default_route")
        assert found.level is level, found
    narrow = route._replace(table=77, destination=Prefix(0, 48))
    assert of(forwarding.checks(replace(facts(), routes=[narrow])), "default_route").level is Level.WARN


@pytest.mark.parametrize(("can_ask", "first"), [(True, ()), (False, ("apt-get install ndisc6",))])
@pytest.mark.parametrize("accept_ra", [1, 2])
def test_what_asks_for_an_advertisement_is_installed_first_where_it_is_missing(
    accept_ra: int, can_ask: bool, first: tuple[str, ...]
) -> None:
    """Where the default route is gone, and where there never was one."""
    its = replace(facts(), receivers=[Receiver("wan0", True, accept_ra, True, True)], can_ask_routers=can_ask)
    kept = ("sysctl -w net/ipv6/conf/wan0/accept_ra=2",) if accept_ra == 1 else ()
    assert of(forwarding.checks(its), "default_route").mend == (*kept, *first, "rdisc6 -1 wan0")


def test_forwarding_of_one_interface_is_mended_without_its_default_route_going() -> None:
    its = facts()
    config = parse(ROUTED, "x")
    default = DefaultRoute("wan0", advertised=True)
    its = replace(its, config=config, table=build(config, its.links), sysctls={"conf/all/forwarding": "1"})
    receivers = [Receiver("wan0", False, 1, True, True), Receiver("lan0", False, 1, True, True)]
    found = of(forwarding.checks(replace(its, forwards={2: False}, receivers=receivers, default=default)), "forwarding")
    kept = tuple(f"sysctl -w net/ipv6/conf/{name}/accept_ra=2" for name in ("wan0", "lan0"))
    assert found.mend == (*kept, "sysctl -w net/ipv6/conf/wan0/forwarding=1"), "any purges those of all"


def calls(work: Callable[[], object]) -> int:
    """How many calls some work takes."""
    counted = count()
    sys.setprofile(lambda *_: next(counted) and None)
    try:
        work()
    finally:
        sys.setprofile(None)
    return next(counted)


def test_proxy_entries_of_others_are_each_compared_with_their_own_interface() -> None:
    def many(number: int) -> Facts:
        its = facts()
        text = "".join(ROUTED.replace("wan0", f"w{each}") for each in range(number))
        links = {f"w{n}": replace(its.links["wan0"], name=f"w{n}", ifindex=n + 2) for n in range(number)}
        config = parse(text, "x")
        proxies = [(f"w{each}", IPv6Address("2001:db8:1::7")) for each in range(number)]
        return replace(its, config=config, links=links, table=build(config, links), proxies=proxies)

    few, more = many(50), many(200)
    assert "200 entries" in of(others.checks(more), "proxy_entries").message
    assert calls(lambda: list(others.checks(more))) < 6 * calls(lambda: list(others.checks(few)))
