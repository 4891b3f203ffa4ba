# SPDX-License-Identifier: GPL-2.0-or-later
"""Announces a multicast router where it is wanted, so that snooping switches send all groups (RFC 4286)."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping, Set

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.mrd import advertisement, solicited, termination
from npd6_xdp.core.mrd_left import MOST_BYTES, LeftRouter, pack, unpack
from npd6_xdp.core.mrd_segments import NOWHERE, Segment, Sender, finding_segments
from npd6_xdp.core.mrd_times import Times
from npd6_xdp.core.said import Said
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.daemon.in_force import NO_TABLE, Change, Follower, InForce
from npd6_xdp.daemon.lines import Damper, Lines
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.system.left import Left
from npd6_xdp.system.mrd import Solicitations, end_announced

_MOST_SENT = 64  # in one turn
_PIECE = 64  # segments that are gone through in one turn
_PATIENCE = 5.0  # seconds that a link which has come up may be without an address before that is said
_AGAIN = 10.0  # seconds until a socket that was refused is tried again
_REST = 0.25  # seconds between two looks at what was heard, so that a storm costs no more than these


class RouterDiscovery(Follower):
    """Follows the segments, and sends by `ports`: where the program sits on none, or the link is down, it tries again.

    What a segment was told lately is in `_announced`, by who has told it: there, a Termination is due at the end. Where
    the end `lasts` until a successor comes, it is in a file, too, for him or for who cleans up if none comes.
    """

    def __init__(self, ports: Ports, damper: Damper | None = None, *, lasts: bool = False) -> None:
        self._ports = ports
        self._file = file() if lasts else None
        self._before: dict[Segment, LeftRouter] | None = None  # what a predecessor has announced; None: not read yet
        self._is_written = False
        self._lines = Lines(damper)
        self._said = Said()
        self._waiting: dict[Segment, tuple[float, str]] = {}  # since when (seconds, monotonic), and what to say of it
        self._say_at: float | None = None
        self._deaf = Said()
        self._follow_at: float | None = None
        self._times: Times[Segment] = Times(random.random)
        self._senders: dict[Segment, Sender] = {}
        self._found = NO_TABLE, NOWHERE
        self._announced: dict[Segment, Sender] = {}
        self._heard = Solicitations()
        self._listen_at: float | None = None

    def close(self) -> None:
        """Listen no more. What was announced is ended before, by end()."""
        self._heard.close()

    def join(self, loop: Loop) -> None:
        """Have the loop announce what is due, and hear who asks."""
        loop.watch("mrd", lambda: [(self._heard.fileno(), self._on_solicitations)], self._reopen)
        loop.at(lambda: self._listen_at, self._listen, "mrd")
        loop.at(lambda: self._follow_at, self._follow, "mrd")
        loop.at(lambda: self._times.due, self._announce, "mrd")
        loop.at(lambda: self._say_at, self._say, "mrd")

    # --- what is in force ---

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Find where it is to be announced."""
        change.undo.callback(setattr, self, "_found", self._found)
        self._found = new.table, (yield from finding_segments(new.table, new.links))

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """End where it isn't wanted any more, while the port still sends, and begin where it is, or is another's."""
        table, found = self._found
        if table is not new.table:  # what was found was for one that came to nothing
            found = yield from finding_segments(new.table, new.links)
        for some in pieces([*self._senders], _PIECE):
            for segment in some:
                if segment not in found.senders:
                    self._leave(segment, wanted=segment in found.waiting)
            yield
        now = time.monotonic()
        for senders in pieces(found.senders.items(), _PIECE):
            for segment, sender in senders:
                if self._senders.get(segment) != sender:
                    self._senders[segment] = sender
                    self._times.begin(segment, now)
            yield
        self._wait(found.waiting, now)
        self._follow(now)
        self._take_over({*found.senders, *found.waiting})
        self._write()

    def _take_over(self, wanted: Set[Segment]) -> None:
        """End what a predecessor has announced, and isn't wanted any more."""
        if self._file is None:
            return
        if self._before is None:
            self._before = {each.segment: each for each in unpack(self._file.read() or b"")}
        gone = [self._before.pop(segment) for segment in self._before.keys() - wanted]
        end_announced(gone)
        self._is_written &= not gone

    def _write(self) -> None:
        """Have it in the file where a Termination is due."""
        if self._file is None or self._is_written:
            return
        self._is_written = True
        own = {
            segment: LeftRouter(segment.ifindex, each.mac, each.source, each.tags)
            for segment, each in self._announced.items()
        }
        self._file.write(pack(({**(self._before or {}), **own}).values()))

    def end(self, *, leave: bool = False) -> None:
        """The daemon ends: so does what it has announced, while the ports still send.

        `leave`: a successor is to come, who announces the same anew. Nothing is ended: a switch that went by it would
        keep from us what is asked meanwhile.
        """
        if leave:
            self._announced.clear()
        elif self._file is not None:
            self._file.remove()
        for segment in tuple(self._announced):
            self._leave(segment, wanted=False)

    def _leave(self, segment: Segment, *, wanted: bool) -> None:
        """I6: nothing is announced in a segment any more. `wanted`: it can't be now, nor can anything be sent."""
        self._times.end(segment)
        self._senders.pop(segment, None)
        sender = self._announced.pop(segment, None)
        self._is_written &= sender is None
        if sender is not None and not wanted:
            self._send(segment, sender, termination(sender.mac, sender.source, sender.tags))

    def _send(self, segment: Segment, sender: Sender, frame: bytes) -> bool:
        """Whether it was sent: the port is attached, is the one that is meant, and up."""
        port = self._ports.get(segment.ifindex)
        return port is not None and port.generation == sender.generation and port.socket.send(frame)

    def _wait(self, waiting: Mapping[Segment, str], now: float) -> None:
        """Some can't be announced at the moment: said where that lasts."""
        before = self._waiting
        self._waiting = {
            segment: (before[segment][0] if segment in before else now, line)
            for segment, line in waiting.items()
            if line
        }
        self._said.keep(self._waiting)
        self._plan()

    def _say(self, now: float) -> None:
        for segment, (since, line) in self._waiting.items():
            if since + _PATIENCE <= now and self._said.note(segment):
                self._lines.add_line(logging.WARNING, line, ifindex=segment.ifindex)
        self._lines.say()
        self._plan()

    def _plan(self) -> None:
        unsaid = (since for segment, (since, _) in self._waiting.items() if segment not in self._said)
        self._say_at = min((since + _PATIENCE for since in unsaid), default=None)

    # --- sent and heard ---

    def _announce(self, now: float) -> None:
        """What is due, and can be sent."""
        for segment in self._times.take(now, _MOST_SENT):
            sender = self._senders[segment]
            if not self._send(segment, sender, advertisement(sender.mac, sender.source, sender.tags)):
                continue
            self._times.sent(segment, now)
            if self._announced.get(segment) != sender:
                self._announced[segment] = sender
                (self._before or {}).pop(segment, None)
                self._is_written = False
                self._lines.add(
                    logging.INFO, sender.label, "announced as a multicast router, for MLD-snooping switches"
                )
        self._lines.say()
        self._write()

    def _on_solicitations(self) -> None:
        now = time.monotonic()
        self._listen_at = now + _REST  # whatever comes of it: else nobody might listen any more
        for ifindex, frame in self._heard.heard():
            tags = solicited(frame)
            if tags is not None:
                self._times.solicited(Segment(ifindex, tags), now)

    def _listen(self, now: float) -> None:
        self._listen_at = None
        self._heard.listen()

    def _follow(self, now: float) -> None:
        """Listen where it is announced; what is refused is tried again."""
        self._follow_at = None
        try:
            self._heard.follow({segment.ifindex for segment in self._senders})
        except MachineError as error:
            self._follow_at = now + _AGAIN
            if self._deaf.note(what=str(error)):
                line = f"{error}; announcing by time only there, and trying again every {_AGAIN:.0f} s"
                self._lines.add_line(logging.WARNING, line)
                self._lines.say()
        else:
            self._deaf.over()

    def _reopen(self) -> None:
        self._heard.close()
        self._heard = Solicitations()
        self._listen_at = None
        self._follow(time.monotonic())


def file() -> Left:
    """Where it is left what a process has announced."""
    return Left("multicast-routers", MOST_BYTES)
