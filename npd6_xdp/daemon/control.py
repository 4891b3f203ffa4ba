# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: where the configuration has it, and who answers which verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.in_force import Change, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.control import ControlServer, Reply

Verb = Callable[[dict[str, Any], Reply], None]
"""What a question that has this verb is answered by, now or later."""


class Control(Follower):
    """Listens from the start on: another daemon at the same path is a reason not to start."""

    def __init__(self, path: str, loop: Loop) -> None:
        self._loop = loop
        self._verbs: Mapping[str, Verb] = {}
        self._path = path
        self._server = ControlServer(path, loop, self._answer)
        self._next: tuple[str, ControlServer] | None = None

    def close(self) -> None:
        """Let go of the socket, and hang up."""
        self._give_up()
        self._server.close()

    def join(self, loop: Loop, verbs: Mapping[str, Verb]) -> None:
        """From now on, questions are answered."""
        self._verbs = verbs
        loop.renew(ControlServer.WHERE, self._renew)
        loop.at(lambda: self._server.due, lambda now: self._server.tick(now), ControlServer.WHERE)

    def say_at_work(self) -> None:
        """Let those who wait know that we are at it."""
        self._server.say_at_work()

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Listen where it is to be. Raises MachineError if that can't be."""
        path = new.config.control
        if self._next is None or self._next[0] != path:
            self._give_up()
            if path != self._path:
                self._next = path, ControlServer(path, self._loop, self._answer)
                change.undo.callback(self._give_up)
        yield from ()

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Nobody asks at the old place any more; who has asked there is yet to hear."""
        if self._next is not None and self._next[0] == new.config.control:  # and not that of one to come
            self._server.stop_listening()
            (self._path, self._server), self._next = self._next, None
        yield from ()

    def _give_up(self) -> None:
        if self._next is not None:
            self._next[1].close()
            self._next = None

    def _renew(self) -> None:
        self._server.close()
        self._server = ControlServer(self._path, self._loop, self._answer)

    def _answer(self, question: dict[str, Any], reply: Reply) -> None:
        verb = self._verbs.get(question["verb"])
        if verb is None:
            known = " and ".join(self._verbs)
            reply({"error": f"unknown verb {question['verb']!r}: it knows {known}"})
        else:
            verb(question, reply)
