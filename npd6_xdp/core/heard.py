# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts that were heard on a link where the neighbour table doesn't have them.

The kernel learns where a host is from the host's solicitations. A solicitation that we answer never reaches it, so we
do here what the kernel would have done. A host that is new on a link is looked for there. If it has another MAC address
than its entry, the old one is probed first: else anybody could take over a host's address. Only if that probe is
unanswered, the entry is removed and the host looked for anew. The same is done for a host that comes back to a link
where its entry is about to fail.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from npd6_xdp.core.neighbours import Host

MAX_HEARD = 512
"""Hosts that are looked for or probed at once. What the kernel looks for takes space in its table."""
LOOK_SECONDS = 2.5
"""Seconds for which the kernel looks for a host; in these it asks two or three times (RetransTimer, RFC 4861 §10)."""
_GIVE_UP = 10.0  # seconds for which a probe waits for its turn
_NO_TIME = float("inf")


class _Stage(Enum):
    """What becomes of a host that was heard."""

    DOUBTED = auto()  # its entry's MAC is to be asked
    ASKED = auto()
    MISSED = auto()  # it is to be looked for
    LOOKED_FOR = auto()


@dataclass(slots=True)
class _Heard:
    """`due` is when its stage ends (seconds, monotonic). `stale`: the entry is to go before the host is looked for."""

    stage: _Stage
    due: float
    stale: bool = False


class Heard:
    """Those hosts, and how far each of them has come. `patience` is how long (seconds) a probe may be unanswered."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._hosts: dict[Host, _Heard] = {}
        self._missed: dict[Host, None] = {}
        self._needless: list[Host] = []
        self._due = _NO_TIME

    def __len__(self) -> int:
        return len(self._hosts)

    def clear(self) -> None:
        """Forget all: the neighbour table is being read anew."""
        self._hosts.clear()
        self._missed.clear()

    @property
    def due(self) -> float:
        """When to call tick() (seconds, monotonic)."""
        return self._due

    @property
    def has_work(self) -> bool:
        """Whether there is somebody to look for, or an entry to take out."""
        return bool(self._missed or self._needless)

    def begin(self, host: Host, now: float, *, doubted: bool) -> bool:
        """A host was heard. `doubted`: it has an entry, by which it may not be found; True: that is to be asked."""
        if host in self._hosts or len(self._hosts) >= MAX_HEARD:
            return False
        self._hosts[host] = _Heard(_Stage.DOUBTED if doubted else _Stage.MISSED, now + _GIVE_UP)
        self._due = min(self._due, now + _GIVE_UP)
        if not doubted:
            self._missed[host] = None
        return doubted

    def asked(self, host: Host, now: float) -> None:
        """Its entry's MAC is being asked."""
        heard = self._hosts.get(host)
        if heard is not None and heard.stage is _Stage.DOUBTED:
            heard.stage, heard.due = _Stage.ASKED, now + self._patience
            self._due = min(self._due, heard.due)

    def answered(self, host: Host) -> None:
        """The neighbour table says that it was confirmed."""
        heard = self._hosts.get(host)
        if heard is not None and heard.stage is not _Stage.DOUBTED:
            del self._hosts[host]
            self._missed.pop(host, None)

    def gone(self, host: Host, now: float) -> None:
        """Its entry has gone. Where that was in doubt, the kernel has found it wrong by itself."""
        heard = self._hosts.get(host)
        if heard is not None and heard.stage in (_Stage.DOUBTED, _Stage.ASKED):
            self._miss(host, heard, now, stale=False)

    def _miss(self, host: Host, heard: _Heard, now: float, *, stale: bool) -> None:
        heard.stage, heard.due, heard.stale = _Stage.MISSED, now + _GIVE_UP, stale
        self._missed[host] = None

    def tick(self, now: float) -> None:
        """Go on with those whose time is over; call it when it is `due`."""
        if now < self._due:
            return
        for host, heard in tuple(self._hosts.items()):
            if heard.due > now:
                continue
            if heard.stage is _Stage.ASKED:
                self._miss(host, heard, now, stale=True)
                continue
            if heard.stage is _Stage.LOOKED_FOR:
                self._needless.append(host)
            del self._hosts[host]
            self._missed.pop(host, None)
        self._due = min((heard.due for heard in self._hosts.values()), default=_NO_TIME)

    def take_to_look_for(self, now: float, most: int) -> list[tuple[Host, bool]]:
        """Hosts that the kernel is to look for now, at most `most`. True: its entry is to be replaced by a new one."""
        found = []
        for host in list(self._missed)[:most]:
            del self._missed[host]
            heard = self._hosts[host]
            heard.stage, heard.due = _Stage.LOOKED_FOR, now + LOOK_SECONDS
            self._due = min(self._due, heard.due)
            found.append((host, heard.stale))
        return found

    def take_needless(self) -> list[Host]:
        """Hosts that were not found: the kernel can stop looking for them."""
        found, self._needless = self._needless, []
        return found
