# SPDX-License-Identifier: GPL-2.0-or-later
"""What `init` has decided, as values: the configuration with its reasons, what to set, and what to do by hand."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """An [[interface.rule]] to be; `why` are paragraphs. Without `active` it is written as a comment."""

    prefix: str
    method: str
    via: tuple[str, ...]
    why: tuple[str, ...]
    host_routes: bool = False
    active: bool = True


class Entry(NamedTuple):
    """An [[interface]] to be."""

    name: str
    why: tuple[str, ...]
    rules: tuple[Rule, ...]

    @property
    def active(self) -> bool:
        """Whether it has a rule."""
        return any(rule.active for rule in self.rules)


class Setting(NamedTuple):
    """A sysctl below net.ipv6 to be set: `key` as "conf/eth0/accept_ra", what it is `now` and is to be, and why."""

    key: str
    now: str
    value: str
    why: str


class Step(NamedTuple):
    """Something to be done by hand, with commands for it; `where` they are to be given, if not here."""

    words: str
    commands: tuple[str, ...] = ()
    where: str = ""


class Plan(NamedTuple):
    """All of it. `notes` stand above the configuration. `settings` are in the order in which they are to be set, and
    `lasting` those with what is so already, but perhaps until the next boot only.

    `example` is an address that is behind, or "" where none is known, and `asked_on` the interface that it is asked for
    on. `problem` is a line, why there is nothing to answer for; "" where there is.
    """

    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    lasting: tuple[Setting, ...] = ()
    steps: tuple[Step, ...] = ()
    example: str = ""
    asked_on: str = ""
    problem: str = ""
