# SPDX-License-Identifier: GPL-2.0-or-later
"""What was seen of two edges over time, and what a change of hands was like by that: no socket and no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from npd6_xdp.lab.pair import Edge

_ENOUGH_FOR_A_PACE = 100  # targets; of fewer, a burst may be all of them


class Seen(NamedTuple):
    """Something that an edge sent for a target (or did), at a time in seconds; `mac` is the one that it advertised."""

    at: float
    edge: Edge
    target: str
    mac: str = ""


@dataclass(slots=True)
class Sightings:
    """All that was seen so far, each list in the order of time."""

    answers: list[Seen] = field(default_factory=list)  # to the questions that are asked all the time, for one target
    announcements: list[Seen] = field(default_factory=list)  # unsolicited advertisements
    echoes: list[Seen] = field(default_factory=list)  # what the hosts sent back, through which edge
    came: list[Seen] = field(default_factory=list)  # the shared address, to an edge
    went: list[Seen] = field(default_factory=list)
    questions: list[float] = field(default_factory=list)  # when each was sent
    pings: list[tuple[float, str]] = field(default_factory=list)  # when each was sent, and to which host


class Change(NamedTuple):
    """A change of hands, in seconds. What nobody has asked or pinged meanwhile isn't counted as unanswered."""

    role: float  # until the successor had the address
    shared: float  # for how long both had it
    vacant: float  # for how long neither had it, if the other one has given it up
    silence: float  # for how long nobody answered: from the first question that nobody did
    both: float  # for how long both did
    outages: dict[str, float]  # each host, for how long nothing came back from it: from the first ping that was lost
    turns: dict[str, int]  # each target that was announced by the successor, as which one: 1 is the first
    pace: float  # announcements a second, each target's first one

    @property
    def announced(self) -> str:
        """How many targets were announced, and how fast where there are enough to tell, in words."""
        pace = f", {self.pace:.0f} per second" if len(self.turns) >= _ENOUGH_FOR_A_PACE else ""
        return f"{len(self.turns)} targets announced{pace}"

    def late(self, hosts: Collection[str], at_most: float, per_second: float) -> dict[str, float]:
        """Those of some hosts that were away for longer than `at_most` and their turn in the announcements, and for how
        long.
        """
        return {
            host: self.outages[host]
            for host in hosts
            if self.outages.get(host, 0.0) > at_most + self.turns.get(host, 0) / per_second
        }


def change(seen: Sightings, event: float, successor: Edge) -> Change | None:
    """What came of an event, by what has been seen since; None if the successor hasn't answered yet."""
    since = [answer for answer in seen.answers if answer.at >= event]
    first = min((answer.at for answer in since if answer.edge == successor), default=None)
    if first is None:
        return None
    last = max((answer.at for answer in since if answer.edge != successor), default=event)
    unanswered = min((asked for asked in seen.questions if asked >= last), default=first)
    role = min((one.at for one in seen.came if one.edge == successor and one.at >= event), default=event)
    given_up = min((one.at for one in seen.went if one.edge != successor and one.at >= event), default=role)
    announced = _announced(seen, event, successor)
    took = max(announced.values(), default=0.0) - min(announced.values(), default=0.0)
    return Change(
        role=role - event,
        shared=max(0.0, given_up - role),
        vacant=max(0.0, role - given_up),
        silence=max(0.0, first - unanswered),
        both=max(0.0, last - first),
        outages=outages(seen, event),
        turns={target: number for number, target in enumerate(announced, 1)},
        pace=(len(announced) - 1) / took if took else 0.0,
    )


def _announced(seen: Sightings, event: float, successor: Edge) -> dict[str, float]:
    """When the successor has announced each target first, in that order."""
    found: dict[str, float] = {}
    for one in seen.announcements:
        if one.at >= event and one.edge == successor:
            found.setdefault(one.target, one.at)
    return found


def outages(seen: Sightings, event: float) -> dict[str, float]:
    """For how long at most nothing came back from each host since an event, those left out that are still away.

    A ping that is answered takes some microseconds, and the machine may be busy for longer than that.
    """
    steps: dict[str, list[tuple[float, bool]]] = defaultdict(list)  # each host's pings and echoes
    for at, host in seen.pings:
        if at >= event:
            steps[host].append((at, False))
    for echo in seen.echoes:
        if echo.at >= event:
            steps[echo.target].append((echo.at, True))
    found: dict[str, float] = {}
    for host, times in steps.items():
        waits = None
        for at, is_echo in sorted(times):
            if not is_echo:
                waits = at if waits is None else waits
            else:
                found[host] = max(found.get(host, 0.0), 0.0 if waits is None else at - waits)
                waits = None
    return found
