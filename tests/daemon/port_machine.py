# SPDX-License-Identifier: GPL-2.0-or-later
"""What ports are attached to in the tests of Ports and Ways: a kernel that takes what it is told, and a card."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import finish
from npd6_xdp.daemon import ways
from npd6_xdp.daemon.in_force import Change
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.system.bpf.refusals import Refused, Taken
from tests.daemon.forces import in_force
from tests.netns.wire import configuration

NATIVE = configuration(attach='"native"')
TRUNK = NATIVE + configuration("2001:db8:2::/64 static", vlan="100", attach='"native"')
WAN = LinkFacts("wan0", 7, bytes((2, 0, 0, 0, 0, 7)), up=True)
WITH_DEVICE = replace(WAN, l3={(): 7, (100,): 8})
OTHER = 99  # the id of somebody else's program
_ATTACHED = SimpleNamespace(xdp={1}, allmulti=1)


class NsFilter:
    """Takes what it is told, and has a program everywhere."""

    program_id = 1
    inherits = False
    by_tc = True

    def attach(self, *_: object) -> bool:
        """As if it were there."""
        return False

    detach = let_go = attach

    def go_by_tc(self, *, wanted: bool) -> bool:
        """Whether there would be a program at tc in between."""
        before, self.by_tc = self.by_tc, wanted
        return before

    def take_gap(self) -> float:
        """There is none."""
        return 0.0

    def sits(self, _: int) -> None:
        """Neither ours nor one that was left."""

    def inherited(self, _: int) -> None:
        """Nobody has left one."""

    def taken_off(self, _: object) -> list[int]:
        return []


class Netlink:
    """Links that never change by themselves."""

    losses, behind = 0, False

    def link(self, _: int) -> Any:
        return _ATTACHED

    def generation(self, _: int) -> int:
        return 0

    def groups(self, _: int) -> frozenset[bytes]:
        return frozenset()


class Sockets:
    """None are opened."""

    def __init__(self, _: object) -> None: ...

    def __getattr__(self, _: str) -> Callable[..., Any]:
        return lambda *_: SimpleNamespace(way=None)


class Card:
    """Whose receive VLAN offload is switched; how often somebody asked."""

    def __init__(self) -> None:
        self.offload, self.asked = False, 0

    def __call__(self, _: str) -> bool:
        self.asked += 1
        return self.offload


class Machine:
    """Where the program may be: how many times somebody asked for native mode, and the way it sits now."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.native: MachineError | None = None
        self.tc: MachineError | None = None
        self.generic: MachineError | None = None
        self.asked = 0
        self.sits: list[AttachMode] = []
        self.set_up: dict[int, tuple[bytes, ...]] = dict.fromkeys(range(40), (b"1500", b"features", b"channels"))
        self._modes: dict[int, AttachMode] = {}
        self._other = 0
        self.now = 1000.0
        monkeypatch.setattr(NsFilter, "attach", lambda *args: self._attach(*args))
        monkeypatch.setattr(Netlink, "link", lambda _, ifindex: self._link(ifindex))
        monkeypatch.setattr(ways, "settings", lambda ifindex: self.set_up[ifindex])
        monkeypatch.setattr(ways, "time", SimpleNamespace(monotonic=lambda: self.now))

    def _attach(self, the_filter: NsFilter, ifindex: int, _name: str, mode: AttachMode, _order: object) -> bool:
        self.asked += mode is AttachMode.NATIVE
        refusal = {AttachMode.NATIVE: self.native, AttachMode.TC: self.tc, AttachMode.GENERIC: self.generic}[mode]
        if refusal is not None:
            raise refusal
        self.sits.append(mode)
        self._modes[ifindex], self.went_by_tc = mode, the_filter.by_tc
        return False

    def _link(self, ifindex: int) -> SimpleNamespace:
        ours = int(self._modes.get(ifindex, AttachMode.TC).is_xdp)
        return SimpleNamespace(xdp=(self._other or ours, 0, 0), allmulti=1)

    def changes(self, ifindex: int, which: int) -> None:
        """Somebody sets up an interface otherwise."""
        before = self.set_up[ifindex]
        self.set_up[ifindex] = (*before[:which], before[which] + b"'", *before[which + 1 :])

    def taken(self) -> None:
        """Somebody else's program has the place of XDP."""
        self.native, self._other = Taken(f"wan0: another XDP program is attached in native mode: id {OTHER}"), OTHER

    def refuses(self, why: str = "Operation not supported") -> None:
        self.native = Refused(f"wan0: the driver refuses an XDP program in native mode: {why}")
        self._other = 0

    def free(self) -> None:
        self.native, self._other = None, 0


def follow(there: Ports, text: str, link: LinkFacts, *, admit: bool = False) -> None:
    config, links = parse(text, "test"), {"wan0": link}
    table = build(config, links)
    new = in_force(table, links, config)
    if admit:
        finish(there.admitting(new, Change(ExitStack(), asked=True)))
    finish(there.following(new))


def looked(there: Ports) -> None:
    """A round of looks has passed."""
    for turn in range(1, 7):
        there.tick(there.due + turn if there.due is not None else 0.0)
