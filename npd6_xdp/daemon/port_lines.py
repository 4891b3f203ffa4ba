# SPDX-License-Identifier: GPL-2.0-or-later
"""What the log says of ports: how the program sits on each, and of those that refuse or can't be ports why, once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from npd6_xdp.core.config import Config
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.said import Said
from npd6_xdp.daemon.attaching import AttachedAs
from npd6_xdp.daemon.lines import Damper, Lines, some

_UNANSWERED = "no program was there for {} ms, while the mode changed: what came then is neither answered nor counted"


class PortLines(Lines):
    """Lines about ports, which know what was said of each."""

    def __init__(self, damper: Damper | None = None) -> None:
        super().__init__(damper)
        self._announced: set[int] = set()
        self._refused = Said()
        self._gaps: list[tuple[LinkFacts, float]] = []

    @property
    def have_refusals(self) -> bool:
        """Whether there are interfaces that have refused, or can't be ports."""
        return len(self._refused) > 0

    def has_refused(self, ifindex: int) -> bool:
        """Whether it was said that an interface has refused."""
        return ifindex in self._refused

    def attached(self, link: LinkFacts, attached: AttachedAs, entries: Iterable[Entry]) -> None:
        """How the program sits on a port, and what it does there."""
        self._announced.add(link.ifindex)
        why = f"; not native: {attached.why}" if attached.why else ""
        text = f"{attached}, datapath {_datapaths(link.name, entries)}{why}"
        self.add(logging.INFO, link.name, text, f"{attached}{why}", ifindex=link.ifindex)

    def is_announced(self, ifindex: int) -> bool:
        """Whether how the program sits there was said, or needn't be."""
        return ifindex in self._announced

    def announce_none(self, ifindex: int) -> None:
        """It is back as it was said to be."""
        self._announced.add(ifindex)

    def forget(self, ifindex: int) -> None:
        """It isn't there any more as it was said to be."""
        self._announced.discard(ifindex)

    def unanswered(self, link: LinkFacts, seconds: float) -> None:
        """No program was on a port for so long, while it went from one mode to another."""
        self._gaps.append((link, seconds))

    def say(self) -> None:
        """As Lines.say(); of many ports without a program, for how long the one was that had none for longest."""
        longest = max((seconds for _, seconds in self._gaps), default=0.0)
        for link, seconds in self._gaps:
            kind = _UNANSWERED.format(f"up to {1000 * longest:.1f}")
            text = _UNANSWERED.format(f"{1000 * seconds:.1f}")
            self.add(logging.WARNING, link.name, text, kind, ifindex=link.ifindex, duration=seconds)
        self._gaps.clear()
        super().say()

    def refused(self, ifindex: int, line: str) -> None:
        """Why it can't be attached to, unless the same was said before."""
        if self._refused.note(ifindex, line):
            self.add_line(logging.ERROR, line, ifindex=ifindex, error=line.partition(": ")[2])

    def accepted(self, ifindex: int) -> None:
        """It has refused, and doesn't any more."""
        self._refused.over(ifindex)

    def what_cannot_be(self, config: Config, links: Mapping[str, LinkFacts]) -> None:
        """Which interfaces that a glob catches can't be ports. Of one that is named, it is a warning."""
        for link in links.values():
            if not link.why_no_port or link.name == "lo":
                continue
            entries = config.entries(link.name)
            if entries and all(entry.is_glob for entry in entries):
                self.refused(link.ifindex, f"{link.name}: {link.why_no_port}")
        self._refused.keep({link.ifindex for link in links.values()})


def _datapaths(port: str, entries: Iterable[Entry]) -> str:
    """The datapaths on a port, with the entries that have each, where these are more than the port itself."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        if entry.spoken:
            found.setdefault(str(entry.datapath), {})[entry.label] = None
    if [*found.values()] == [{port: None}]:
        return next(iter(found))
    return ", ".join(f"{datapath} ({some([*labels])})" for datapath, labels in found.items())
