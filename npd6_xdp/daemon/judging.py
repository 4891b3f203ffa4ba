# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon is judged by (core/judgement.py), gathered; and which problems the log has by that."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence

from npd6_xdp.core.absent import finding_absent_names
from npd6_xdp.core.judgement import Facts, Port, Problem, ProblemKind
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.logged import Fields, fields, named
from npd6_xdp.core.said import Said
from npd6_xdp.core.samples import Samples
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.warnings import Warnings
from npd6_xdp.daemon.in_force import InForce
from npd6_xdp.daemon.ports import Ports
from npd6_xdp.daemon.resolution import Resolution
from npd6_xdp.daemon.tables import Tables
from npd6_xdp.daemon.tags import Tags

log = logging.getLogger("npd6-xdp")

_NUMBER = re.compile(r"\b[\d,]+\b")
_AGAIN = 60.0  # seconds after which what has come back is news
_LOGGED = {
    *(ProblemKind.LOST, ProblemKind.FAILED, ProblemKind.DRIVER, ProblemKind.REFUSED, ProblemKind.TABLE),
    *(ProblemKind.HOST_ROUTES, ProblemKind.RATE_LIMITED, ProblemKind.UNANSWERED),
}
"""Problems that are known by counting. Of the others whoever finds them says a line himself."""
_OF_INTERFACES = {ProblemKind.LOST, ProblemKind.FAILED, ProblemKind.DRIVER}
"""Those whose text begins with the interfaces' names."""


class Judging:
    """Asks the rooms. Another thread may ask for facts: nothing that the loop changes is looped over."""

    def __init__(self, ports: Ports, tags: Tags, resolution: Resolution, tables: Tables) -> None:
        self._ports = ports
        self._tags = tags
        self._resolution = resolution
        self._tables = tables

    def facts(
        self, now: InForce, warnings: Warnings, reload_error: str, samples: Samples, silent: float
    ) -> Steps[Facts]:
        """All of them; the loop has been `silent` for so many seconds."""
        ports: dict[str, Port] = {}
        for names in pieces(_ports(now)):
            ports.update((name, self._port(name, now.links.get(name))) for name in names if name not in ports)
            yield
        absent: Sequence[str] = ()
        present: Sequence[str] = ()
        if all(port.why for port in ports.values()):
            absent, present = (yield from finding_absent_names(now.config, now.links)), now.present
        return self._facts(now, [*ports.values()], warnings, samples, reload_error, silent, absent, present)

    def counted(self, now: InForce, warnings: Warnings, samples: Samples) -> Steps[Facts]:
        """Those that say whether there are problems that are known by counting: one port that answers will do, and one
        warning of a kind. Thousands take more time than the loop has.
        """
        port = Port("", "is not there")
        for names in pieces(_ports(now)):
            found = (self._port(name, now.links.get(name)) for name in names)
            port = next((each for each in found if not each.why), port)
            if not port.why:
                break
            yield
        return self._facts(now, [port], {kind: lines[:1] for kind, lines in warnings.items()}, samples)

    def _facts(
        self,
        now: InForce,
        ports: Sequence[Port],
        warnings: Warnings,
        samples: Samples,
        reload_error: str = "",
        silent: float = 0.0,
        absent: Sequence[str] = (),
        present: Sequence[str] = (),
    ) -> Facts:
        taken = time.time()
        counted, outcomes = samples.counted(taken), samples.outcomes(taken)
        tables, missing = self._tables.short_of_space(now.config.limits), len(self._resolution.routes.displaced)
        return Facts(
            ports, warnings, reload_error, silent, absent, present, counted, outcomes, tables, routes_missing=missing
        )

    def _port(self, name: str, link: LinkFacts | None) -> Port:
        if link is None:
            return Port(name, "is not there")
        if self._ports.by_name(name) is None:
            return Port(name, "is not attached")
        if not link.up:
            return Port(name, "is down", ProblemKind.DOWN)
        if link.ifindex in self._tags.silent:
            return Port(name, "has VLAN tags beside its frames", ProblemKind.DOWN)
        return Port(name)


def _ports(now: InForce) -> Iterator[str]:
    """The names of those that it has, or names; of some more than once."""
    yield from (entry.port for entry in now.table.entries.values())
    yield from (interface.name for interface in now.config.interfaces if not interface.is_glob)


class ProblemLines:
    """Logs what is known by counting: when it comes, and when it is over."""

    def __init__(self) -> None:
        self._news = Said(_AGAIN, most=1024)
        self._said: dict[str, Problem] = {}

    def tell(self, problems: Sequence[Problem], now: float) -> None:
        """These are there now (seconds, monotonic). The same with other numbers is the same."""
        found = {_NUMBER.sub("", each.text): each for each in problems if each.kind in _LOGGED}
        over = [self._said.pop(key) for key in self._said.keys() - found.keys()]
        kinds = {each.kind for each in found.values()}
        for problem in over:
            if problem.kind not in kinds:
                log.info("cleared: %s", problem.text, extra=fields(**_interfaces(problem)))
        for key, problem in found.items():
            if key not in self._said:
                if not self._news.note(key, now=now):
                    continue
                log.warning("%s", problem.text, extra=fields(**_interfaces(problem)))
            self._said[key] = problem


def _interfaces(problem: Problem) -> Fields:
    """Those that it is about, as many as it names."""
    if problem.kind not in _OF_INTERFACES:
        return {}
    names = problem.text.partition(": ")[0].partition(" and ")[0]
    return named(*names.split(", "))
