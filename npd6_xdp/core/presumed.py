# SPDX-License-Identifier: GPL-2.0-or-later
"""Which targets the other edge seems to have answered: those that aren't known to be there, by how they are asked for.

Who gets no answer asks three times in all, a second apart (RFC 4861 §7.2.2). So one that isn't asked for a third time
seems to have been answered, and to be in the asker's cache. The others are kept as well, but apart from these: a scan
that a router lets by leaves the others only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import Final, NamedTuple

from npd6_xdp.core.remembered import AnsweredTarget, Doubt

_SECOND = 1_000_000_000  # as all times here
SETTLED = 2 * _SECOND
"""After so long, who has had no answer has asked again (RetransTimer is a second, RFC 4861 §10)."""
OVER = 5 * _SECOND
"""After so long, whoever was asking has given up: what comes then is another question."""
ANEW = 10 * _SECOND
"""So long after the time before, one is in use: a scan of a /64 comes to the same address once."""
_LAST = 2  # times that it is asked for again, where nobody answers: MAX_MULTICAST_SOLICIT is 3

_Key = tuple[int, bytes]


class AskedTarget(NamedTuple):
    """A target that was asked for, and how often who asked first has asked again."""

    target: AnsweredTarget
    again: int

    @property
    def doubt(self) -> Doubt:
        """Whether who asked seems to have had an answer."""
        return Doubt.IN_VAIN if self.again >= _LAST else Doubt.SEEMS_ANSWERED


class Sorted(NamedTuple):
    """Of some that were asked for: those that are as good as known, and all those that need no more waiting."""

    known: list[AnsweredTarget]
    settled: list[AnsweredTarget]


class Presumed:
    """`most` of those that seem to be answered, and as many others: those that were asked for last."""

    def __init__(self, most: int = 0) -> None:
        self.most = most
        self._found: Final[dict[Doubt, dict[_Key, AnsweredTarget]]] = {Doubt.SEEMS_ANSWERED: {}, Doubt.IN_VAIN: {}}
        # each in the order in which they were asked for

    def __iter__(self) -> Iterator[AnsweredTarget]:
        """Those that may be announced, if they are there."""
        return iter([each for found in self._found.values() for each in found.values()])

    @property
    def fullest(self) -> int:
        """How many there are of the kind of which there are more."""
        return max(map(len, self._found.values()))

    def take(self, targets: Iterable[AnsweredTarget]) -> None:
        """Presume these, too, as they are in doubt, those that were asked for last at the end."""
        for each in targets:
            self._add(each)

    def pop(self, entry: int, target: bytes) -> AnsweredTarget | None:
        """One that is known by now; None: it wasn't presumed."""
        for found in self._found.values():
            if (one := found.pop((entry, target), None)) is not None:
                return one
        return None

    def keep(self, entries: Set[int]) -> None:
        """Forget those of all other entries."""
        for found in self._found.values():
            for key in [key for key in found if key[0] not in entries]:
                del found[key]

    def sort(self, some: Iterable[AskedTarget], on_standby: Set[int], now: int) -> Sorted:
        """Presume what was asked for on entries on standby, and tell what is settled.

        Of an entry that isn't, what is there gets known as it is answered.
        """
        found = Sorted([], [])
        for each in some:
            target, doubt = each.target, each.doubt
            waits = target.entry in on_standby and doubt is Doubt.SEEMS_ANSWERED
            if now - target.asked < (SETTLED if waits else OVER):
                continue
            found.settled.append(target)
            if target.entry not in on_standby:
                continue
            before = self.pop(target.entry, target.target)
            if before is not None and before.doubt is doubt is Doubt.SEEMS_ANSWERED and _is_anew(before, target):
                found.known.append(target)
            else:
                self._add(target._replace(doubt=doubt))
        return found

    def _add(self, target: AnsweredTarget) -> None:
        self.pop(target.entry, target.target)
        found = self._found[target.doubt]
        found[target.entry, target.target] = target
        while len(found) > self.most:
            del found[next(iter(found))]


def _is_anew(before: AnsweredTarget, target: AnsweredTarget) -> bool:
    return target.asked - before.asked >= ANEW
