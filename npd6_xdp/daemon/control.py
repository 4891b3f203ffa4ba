# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket: where the configuration has it, and who answers which verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from npd6_xdp.core.steps import Steps
from npd6_xdp.daemon.in_force import Change, Follower, InForce
from npd6_xdp.daemon.listening import Listening
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.system.control import Connection, ControlServer, Reply

Verb = Callable[[dict[str, Any], Reply], None]
"""What a question that has this verb is answered by, now or later."""


Stays = Callable[[dict[str, Any], Connection], None]
"""Whose the connection of such a question is, unless that raises Npd6Error, which the client is told."""


class Control(Follower):
    """Listens from the start on: another daemon at the same path is a reason not to start."""

    def __init__(self, path: str, loop: Loop) -> None:
        self._verbs: Mapping[str, Verb] = {}
        self._stays: Mapping[str, Stays] = {}

        def listen(path: str) -> ControlServer:
            return ControlServer(path, loop, self._answer, self._keep)

        # who has asked at an address that is left is yet to hear
        self._listening = Listening(path, listen(path), listen, ControlServer.close, ControlServer.stop_listening)

    def close(self) -> None:
        """Let go of the socket, and hang up."""
        self._listening.close()

    def join(self, loop: Loop, verbs: Mapping[str, Verb], stays: Mapping[str, Stays]) -> None:
        """From now on, questions are answered."""
        self._verbs, self._stays = verbs, stays
        loop.renew(ControlServer.WHERE, self._listening.renew)
        loop.at(lambda: self._server.due, lambda now: self._server.tick(now), ControlServer.WHERE)

    @property
    def _server(self) -> ControlServer:
        return self._listening.server

    def say_at_work(self) -> None:
        """Let those who wait know that we are at it."""
        self._server.say_at_work()

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Listen where it is to be. Raises MachineError if that can't be."""
        self._listening.prepare(new.config.control, change)
        yield from ()

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Nobody asks at the old address any more."""
        self._listening.take_over(new.config.control)
        yield from ()

    def _keep(self, question: dict[str, Any], connection: Connection) -> bool:
        stays = self._stays.get(question["verb"])
        if stays is not None:
            stays(question, connection)
        return stays is not None

    def _answer(self, question: dict[str, Any], reply: Reply) -> None:
        verb = self._verbs.get(question["verb"])
        if verb is None:
            known = " and ".join((*self._verbs, *self._stays))
            reply({"error": f"unknown verb {question['verb']!r}: it knows {known}"})
        else:
            verb(question, reply)
