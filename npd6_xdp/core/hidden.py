# SPDX-License-Identifier: GPL-2.0-or-later
"""On which ports VLAN tags stand beside the frames, where XDP can't see them: from when, and until when.

There, what looks untagged may be any VLAN's, and an answer would be by the wrong entry's rules. Nothing tells when that
has ended: the offload that causes it may be another namespace's. So a port counts as mended when tagged frames come as
they should while none with a hidden tag does, or when none of those has come for long.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.names import word

SEEMS_MENDED = 3.0  # seconds without a hidden tag, after which frames with tags in them say that all is well
LONG = 60.0  # seconds without a hidden tag, after which there are none any more
_MOST_VLANS = 5  # that are named


class Tapped(NamedTuple):
    """Ports, by interface index, on which a tap looks for hidden tags.

    Where one was seen, a port is `silent`: what looks untagged is monitored only. One is `guarded` on which there are
    VLANs, and no tag was seen within a frame so far: there the tap looks before anything that looks untagged is
    answered. `sampled` are those on which tags were seen at all: one in a while is looked at first. `tagless` are those
    on which none was so far: the tap tells of the first.
    """

    ports: Set[int] = frozenset()
    silent: Set[int] = frozenset()
    guarded: Set[int] = frozenset()
    sampled: Set[int] = frozenset()
    tagless: Set[int] = frozenset()


@dataclass(slots=True)
class _Silence:
    """A port that is silent: the VLANs whose tags were hidden, when the last one came, what was counted by then."""

    vlans: set[int] = field(default_factory=set)
    last: float = 0.0
    tagged: int = 0


class HiddenTags:
    """The ports that are silent for that, by interface index. Times are in seconds, of any one clock."""

    def __init__(self) -> None:
        self._silent: dict[int, _Silence] = {}

    @property
    def ports(self) -> frozenset[int]:
        """The ports on which nothing that looks untagged is answered."""
        return frozenset(self._silent)

    def seen(self, ifindex: int, vlan: int, tagged: int, now: float) -> bool:
        """A hidden tag was seen on a port, where `tagged` solicitations have come with tags in them so far.

        Whether that is news.
        """
        known = self._silent.setdefault(ifindex, _Silence())
        is_news = vlan not in known.vlans and len(known.vlans) < _MOST_VLANS
        if is_news:
            known.vlans.add(vlan)
        known.last, known.tagged = now, tagged
        return is_news

    def take_mended(self, ifindex: int, tagged: int, now: float) -> bool:
        """Whether a port is as it should be again, where that many came with tags in them by now; then it is let go."""
        known = self._silent[ifindex]
        quiet = now - known.last
        if quiet < LONG and not (quiet >= SEEMS_MENDED and tagged > known.tagged):
            return False
        del self._silent[ifindex]
        return True

    def forget_others(self, ifindexes: frozenset[int]) -> None:
        """Forget all ports but these."""
        for ifindex in self._silent.keys() - ifindexes:
            del self._silent[ifindex]

    def warnings(self, links: Mapping[str, LinkFacts]) -> list[str]:
        """What to do about it, and on which side, a line for each port."""
        lines = []
        for link in links.values():
            if (known := self._silent.get(link.ifindex)) is None:
                continue
            vlans = ", ".join(map(str, sorted(known.vlans)))
            mend = f"ethtool -K {word(link.name)} rxvlan off"
            if link.lossy:  # a veth's own receive offload does nothing: the tag is where the peer left it
                mend = f"on the other end of {link.name}, PEER there: ethtool -K PEER txvlan off"
            lines.append(
                f"{link.name}: tags of VLAN {vlans} stand beside the frames, where XDP can't see them;"
                f" nothing untagged is answered there until they stand in the frames: {mend}"
            )
        return lines
