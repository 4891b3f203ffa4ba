# SPDX-License-Identifier: GPL-2.0-or-later
"""What is taken of what a predecessor has left, and under which names it is left to a successor."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon import handover
from npd6_xdp.daemon.handover import HandOver
from npd6_xdp.daemon.in_force import InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.bpf.attach import Inherited
from npd6_xdp.system.fd_store import MOST_NAMES, FdStore
from npd6_xdp.system.manager import ServiceManager
from tests.daemon.forces import in_force
from tests.netns.wire import configuration

WAN = LinkFacts("wan0", 7, bytes.fromhex("020000000007"), up=True)
LAN = LinkFacts("lan0", 8, bytes.fromhex("020000000008"), up=True)
OTHER = bytes.fromhex("020000000077")
MANY: dict[tuple[int, ...], bytes] = {(vlan,): bytes((2, 0, 0, 0, vlan >> 8, vlan & 255)) for vlan in range(1, 4095)}


class Manager:
    """What is said to him, and the store of which he is."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.store = FdStore(self._notify, {"NOTIFY_SOCKET": "/nowhere", "FDSTORE": "64"})

    def _notify(self, message: str, _: Sequence[int]) -> bool:
        lines = message.splitlines()
        self.said.append(f"{lines[0].partition('=')[0]} {lines[-1].removeprefix('FDNAME=')}")
        return True

    def leave(self, *names: str) -> dict[str, int]:
        """As if a predecessor had left one under each name."""
        found = {}
        for name in names:
            found[name], write = os.pipe()
            os.close(write)
            self.store.inherited.setdefault(name, []).append(found[name])
        return found


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    yield manager
    for fds in manager.store.inherited.values():
        for fd in fds:
            os.close(fd)


def force(*links: LinkFacts, **keys: str) -> InForce:
    config, by_name = parse(configuration(**keys), "test"), {link.name: link for link in links}
    return in_force(build(config, by_name, held=frozenset()), by_name, config)


def name_of(ifindex: int, first: InForce) -> str:
    """Under which a process has a link kept."""
    manager = Manager()
    HandOver(manager.store, ExitStack()).links(first).keep(ifindex, 3)
    return manager.said[0].removeprefix("FDSTORE ")


RIGHT = name_of(7, force(WAN))


def is_open(fd: int) -> bool:
    with suppress(OSError):
        return bool(os.fstat(fd))
    return False


def inherited(manager: Manager, first: InForce) -> list[Inherited]:
    return [*HandOver(manager.store, ExitStack()).links(first).inherited]


def test_a_link_of_a_port_with_the_same_mac_address_is_taken(manager: Manager) -> None:
    left = manager.leave(RIGHT)
    assert inherited(manager, force(WAN, LAN)) == [Inherited(7, left[RIGHT], RIGHT, is_wanted=True)]
    assert manager.said == [], "it stays in the store"


@pytest.mark.parametrize(
    ("name", "links", "why"),
    [
        (RIGHT, (replace(WAN, mac=OTHER),), "wan0: another MAC address since then"),
        (RIGHT, (replace(WAN, bridge_macs={(): OTHER}),), "wan0: another MAC address since then"),
        (RIGHT, (replace(WAN, bridge_macs=MANY),), "wan0: another MAC address since then"),
        (name_of(8, force(LAN)), (WAN, LAN), "lan0: no port of this configuration"),
        (name_of(9, force(replace(LAN, ifindex=9))), (WAN,), "interface 9: no port of this configuration"),
    ],
    ids=["another MAC", "a bridge", "many bridges", "no port", "no interface"],
)
def test_one_that_isnt_wanted_or_has_another_mac_address_is_not_and_the_log_says_why(
    manager: Manager, caplog: pytest.LogCaptureFixture, name: str, links: tuple[LinkFacts, ...], why: str
) -> None:
    manager.leave(name)
    with caplog.at_level(logging.INFO):
        (found,) = inherited(manager, force(*links))
    os.close(found.fd)
    assert not found.is_wanted
    assert caplog.messages == [f"a predecessor's program is taken off {why}"]


def test_all_that_the_store_may_hold_is_handed_over_in_one_string(manager: Manager) -> None:
    """The kernel takes 128 KiB of one: with more, systemd couldn't start the successor."""
    longest = name_of(999_999, force(replace(WAN, ifindex=999_999, bridge_macs=MANY)))
    assert 8_192 * (len(longest) + 1) < MOST_NAMES
    words = subprocess.run(["true"], env={"LISTEN_FDNAMES": "x" * MOST_NAMES}, check=False)
    assert words.returncode == 0


def test_of_two_under_one_name_neither_is_wanted(manager: Manager) -> None:
    manager.leave(RIGHT)
    manager.leave(RIGHT)
    found = inherited(manager, force(WAN))
    for each in found:
        os.close(each.fd)
    assert [each.is_wanted for each in found] == [False, False]


@pytest.mark.parametrize(
    "name",
    ["", "l", "l-", "l7", "l7-aaaaa", "l-aaaaaabc", "l²-aaaaaabc", "l7-aaaaaabcd", "unknown", "web", "link-7"],
)
def test_whatever_else_is_handed_over_is_let_go_of(manager: Manager, name: str) -> None:
    left = manager.leave(name)
    hand_over = HandOver(manager.store, ExitStack())
    assert [*hand_over.links(force(WAN)).inherited] == []
    hand_over.taken_over()
    assert not is_open(left[name])
    assert manager.said == [f"FDSTOREREMOVE {name}"]


def test_a_predecessors_sockets_are_held_until_all_is_taken_over(manager: Manager) -> None:
    left = manager.leave("s5-abc")
    hand_over = HandOver(manager.store, ExitStack())
    hand_over.links(force(WAN))
    holder = hand_over.sockets()
    holder.keep(5)
    (kept,) = manager.said
    assert is_open(left["s5-abc"])
    hand_over.taken_over()
    assert not is_open(left["s5-abc"])
    assert manager.said == [kept, "FDSTOREREMOVE s5-abc"]
    assert kept != "FDSTORE s5-abc", "or the store would drop both"
    holder.release(5)
    assert manager.said[2] == kept.replace("FDSTORE", "FDSTOREREMOVE")


def test_another_mac_address_gives_a_link_another_name_and_the_store_has_it_once(manager: Manager) -> None:
    hand_over = HandOver(manager.store, ExitStack())
    first = force(WAN, LAN)
    keeper = hand_over.links(first)
    keeper.keep(7, 3)
    (kept,) = manager.said
    right = RIGHT[: -len("abc")]
    assert kept.startswith(f"FDSTORE {right}")
    for same in (first, force(WAN, replace(LAN, mac=OTHER))):
        finish(hand_over.settle(first, same))
    assert manager.said == [kept]
    finish(hand_over.settle(first, force(replace(WAN, mac=OTHER), LAN)))
    now = kept.replace(right, name_of(7, force(replace(WAN, mac=OTHER)))[: -len("abc")])
    assert now != kept
    assert manager.said[1:] == [kept.replace("FDSTORE", "FDSTOREREMOVE"), now]
    keeper.release(7)
    assert manager.said[3:] == [now.replace("FDSTORE", "FDSTOREREMOVE")]


def test_the_loop_says_again_what_a_busy_manager_didnt_hear_of_links(tmp_path: Path) -> None:
    """The link has another name by then: a successor that found it under the old one would take it off."""
    words = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "FDSTORE": "64"}
    with (
        ExitStack() as stack,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears,
        Path(os.devnull).open() as link,
    ):
        hears.bind(words["NOTIFY_SOCKET"])
        hears.setblocking(False)
        service, loop = ServiceManager(words), stack.enter_context(closing(Loop()))
        hand_over = HandOver(FdStore(service.send, words), stack)
        hand_over.join(loop)
        first, then = force(WAN, LAN), force(replace(WAN, mac=OTHER), LAN)
        keeper = hand_over.links(first)
        keeper.keep(7, link.fileno())
        service.ready("")
        assert [line[:7] for line, _ in _heard(hears)] == ["FDSTORE", "READY=1"]
        while service.send("FILLS=1"):
            pass
        finish(hand_over.settle(first, then))
        assert {line for line, _ in _heard(hears)} == {"FILLS=1"}
        found: list[tuple[str, bool]] = []
        until = time.monotonic() + 60
        while len(found) < 2 and time.monotonic() < until:
            loop.turn(0.05)
            found += _heard(hears)
        old, new = (name_of(7, each)[: -len("abc")] for each in (first, then))
        assert [(line.split("\n")[0], new in line, old in line, fd) for line, fd in found] == [
            ("FDSTOREREMOVE=1", False, True, False),
            ("FDSTORE=1", True, False, True),
        ]


def _heard(hears: socket.socket) -> list[tuple[str, bool]]:
    """What has come in, and whether a descriptor came with it."""
    found = []
    with suppress(BlockingIOError):
        while True:
            message, fds, _, _ = socket.recv_fds(hears, 4096, 8)
            for fd in fds:
                os.close(fd)
            found.append((message.decode(), bool(fds)))
    return found


def test_nobody_has_left_uncounted_answers_who_has_left_no_program(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "seconds_since_end", lambda: 2.5)
    for adopted, uncounted in ((False, 0.0), (True, 2.5)):
        manager.leave(RIGHT)
        hand_over = HandOver(manager.store, ExitStack())
        keeper = hand_over.links(force(WAN))
        (link,) = keeper.inherited
        if adopted:
            keeper.adopt(link)
        else:
            keeper.drop(link)
        os.close(link.fd)
        hand_over.taken_over()
        assert hand_over.uncounted == uncounted


@pytest.mark.parametrize("attached", [False, True])
def test_a_start_that_fails_leaves_sockets_of_its_own_only_with_a_program_of_its_own(
    manager: Manager, attached: bool
) -> None:
    with ExitStack() as stack:
        hand_over = HandOver(manager.store, stack)
        keeper = hand_over.links(force(WAN))
        hand_over.sockets().keep(5)
        if attached:
            keeper.keep(7, 3)
        before = len(manager.said)
    assert manager.said[before:] == ([] if attached else [manager.said[0].replace("FDSTORE", "FDSTOREREMOVE")])


def test_what_nobody_has_taken_over_stays_in_the_store_at_the_end(manager: Manager) -> None:
    left = manager.leave("s5-abc")
    with ExitStack() as stack:
        HandOver(manager.store, stack)
    assert not is_open(left["s5-abc"])
    assert manager.said == []


def test_a_link_address_is_among_those_that_a_name_says_while_a_device_takes_in_what_is_sent_there() -> None:
    lacking = force(WAN, link_address='"02:00:00:00:00:77"')
    beside = force(replace(WAN, beside_macs={(): frozenset({OTHER})}), link_address='"02:00:00:00:00:77"')
    names = [name_of(7, each)[: -len("abc")] for each in (force(WAN), lacking, beside)]
    assert names[0] == names[1] != names[2]
