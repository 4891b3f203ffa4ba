# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the daemon works, as all who say so have it: the page, /healthz, `status`, `doctor` and the alerts.

What it is judged by are facts that hold now, and what was counted in the last five minutes: what was lost last week is
no problem any more. One cause is one problem: an interface that isn't there is told once, and so is the same of many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.core.vias import down_via
from npd6_xdp.core.warnings import WarningKind, Warnings

WINDOW = 300.0
"""Seconds for which something that was counted is a problem."""
HUNG = 10.0
"""Seconds without a turn after which the main loop is taken for hung; a reload of 100,000 rules takes less."""
MANY_REFUSED = 300
"""Solicitations in that time that limits have refused: one a second, as the alert has it."""
MANY_UNANSWERED = 50
"""Solicitations in that time for targets that a rule might have answered, and none was."""
NEARLY_FULL = 0.8
"""Of a table's limit: above it there is soon no space. The alert has the same."""

LATE = "late"
"""Beside the outcomes: advertisements for targets that were `pending` before."""

_MOST_NAMED = 5  # interfaces in one line
ANSWERED = (Outcome.ANSWERED_XDP, Outcome.ANSWERED_PYTHON, Outcome.KERNEL, LATE)
"""What becomes of those that are answered."""
IN_VAIN = (Outcome.ABSENT, Outcome.PENDING, Outcome.UNMATCHED, Outcome.RATE_LIMITED)
"""What becomes of solicitations that somebody may miss the answer of."""


class State(StrEnum):
    """The judgement in a word or two."""

    WORKING = "working"
    DEGRADED = "degraded"
    NOT_ANSWERING = "not answering"


class ProblemKind(StrEnum):
    """What a problem is about, beside what warnings are about (WarningKind): no name is in both."""

    LOOP = "loop"
    """The main loop hangs."""
    NO_INTERFACE = "no_interface"
    """None of the configured interfaces exists."""
    DETACHED = "detached"
    """The program isn't attached where it should be."""
    DOWN = "down"
    """It is attached, and the link is down, or silent for tags beside its frames."""
    RELOAD = "reload"
    """The last reload failed."""
    LOST = "lost"
    FAILED = "failed"
    DRIVER = "driver"
    """The driver has dropped what XDP sent back (xdp_tx_errors)."""
    REFUSED = "refused"
    """There was no space for a host or a proxy entry."""
    TABLE = "table"
    """There is soon none."""
    HOST_ROUTES = "host_routes"
    """The kernel lacks routes of ours to hosts that are there."""
    RATE_LIMITED = "rate_limited"
    UNANSWERED = "unanswered"
    """Nothing that was asked for is answered, and no other problem says why."""
    INTERNAL_ERROR = "internal_error"
    LOG = "log"
    """Lines of the log were dropped."""


KINDS: Sequence[ProblemKind | WarningKind] = (*ProblemKind, *WarningKind)
"""All that a problem may be about: the label `kind` of npd6_problems."""

_EXPLAINING = {WarningKind.FORWARDING, WarningKind.VIA, ProblemKind.REFUSED}
"""Why nothing may be answered of what comes in. What is wrong with one port is no reason on the others."""


class Port(NamedTuple):
    """A port of the configuration: what keeps it from answering, "" if nothing does, and of which kind that is."""

    name: str
    why: str = ""
    kind: ProblemKind = ProblemKind.DETACHED


class Counted(NamedTuple):
    """A counter that has grown in the last five minutes: whose it is ("wan0"), and what it says in all."""

    kind: ProblemKind
    name: str
    total: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is judged. `absent` and `present` need to be known only where no port answers: the names and globs of
    [[interface]]s that match nothing, and the interfaces that there are.

    `silent`: seconds since the main loop has turned. `outcomes` are those of the last five minutes, by their names.
    `tables` says of those that are to have space left how full they are: entries and limit, by the key of [limits].
    `routes_missing`: how many hosts' routes the kernel lacks.
    """

    ports: Sequence[Port]
    warnings: Warnings = field(default_factory=dict)
    reload_error: str = ""
    silent: float = 0.0
    absent: Sequence[str] = ()
    present: Sequence[str] = ()
    counted: Sequence[Counted] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    routes_missing: int = 0


class Problem(NamedTuple):
    """One cause: its kind, and a line that says what, where, and where that is known, what to do. `more` has further
    lines: a failed reload's mistakes.
    """

    kind: ProblemKind | WarningKind
    text: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The state, and why it isn't better."""

    state: State
    problems: Sequence[Problem] = ()

    @property
    def headline(self) -> str:
        """As the page's head has it."""
        return headline(self.state, len(self.problems))

    @property
    def by_kind(self) -> Mapping[str, int]:
        """How many problems there are of each kind."""
        return dict.fromkeys(map(str, KINDS), 0) | Counter(str(each.kind) for each in self.problems)


WORKING = Judgement(State.WORKING)


def headline(state: str, problems: int) -> str:
    """A state in words, with how many problems there are where they are what is wrong."""
    if state != State.DEGRADED:
        return str(state)
    return f"{state}: {problems:,} problem{'' if problems == 1 else 's'}"


def problem_lines(said: Mapping[str, Any], most: int) -> Iterator[str]:
    """The problems of `status` or of an overview as lines, `most` of them; below a failed reload its mistakes."""
    for problem in said["problems"][:most]:
        is_reload = problem["kind"] == ProblemKind.RELOAD
        yield f"{problem['text']}{':' if is_reload else ''}"
        if is_reload:
            yield from (f"  {line}" for line in said["reload_error"].splitlines())
    if (more := len(said["problems"]) - most) > 0:
        yield f"and {more:,} more problem{'' if more == 1 else 's'}: npd6-xdp status --json has all"


def judging(facts: Facts) -> Steps[Judgement]:
    """The one judgement. A loop that hangs answers nothing, nor does who has no port attached and up; standby is no
    problem. Bit by bit: there may be 100,000 warnings, and as many ports that aren't there.
    """
    none_there = yield from _none_exists(facts)
    problems, told = [*_loop(facts), *(yield from _ports(facts, all_absent=none_there))], set[str]()
    if none_there:
        told = yield from _told_by_ports(facts)
    if facts.reload_error:
        text = "the last reload failed; the configuration before it is in use"
        problems.append(Problem(ProblemKind.RELOAD, text, facts.reload_error))
    for kind, lines in facts.warnings.items():
        for text in (yield from _grouped(line for line in lines if line not in told)):
            problems.append(Problem(kind, text))
    problems += (*_counted(facts), *_tables(facts), *_routes(facts))
    if facts.silent > HUNG or all(port.why for port in facts.ports):
        return Judgement(State.NOT_ANSWERING, problems)
    problems += _unanswered(facts.outcomes, {problem.kind for problem in problems})
    return Judgement(State.DEGRADED if problems else State.WORKING, problems)


def _loop(facts: Facts) -> list[Problem]:
    if facts.silent <= HUNG:
        return []
    return [Problem(ProblemKind.LOOP, f"the main loop has been stuck for {facts.silent:.0f} s")]


def _none_exists(facts: Facts) -> Steps[bool]:
    """Whether none of the configured interfaces is on this machine."""
    absent = {*facts.absent}
    for ports in pieces(facts.ports):
        if not all(port.name in absent for port in ports):
            return False
        yield
    return True


def _told_by_ports(facts: Facts) -> Steps[set[str]]:
    """The warnings that say of an interface that it isn't there, where that is told of all of them at once."""
    absent, told = {*facts.absent}, set[str]()
    for lines in pieces(facts.warnings.get(WarningKind.INTERFACE, ())):
        told.update([line for line in lines if line.partition(": ")[0] in absent])
        yield
    return told


def _ports(facts: Facts, *, all_absent: bool) -> Steps[list[Problem]]:
    if all_absent:
        return [Problem(ProblemKind.NO_INTERFACE, none_exists(facts.absent, facts.present))]
    warned: set[str] = set()
    for kind, name_of in (
        # where a warning is about the interface as such, that says more
        (WarningKind.INTERFACE, _name_of),
        (WarningKind.TAGS, _name_of),
        # and where a rule looks for its hosts there, too, its warning has the same cause and the same mend
        (WarningKind.VIA, down_via),
    ):
        for lines in pieces(facts.warnings.get(kind, ())):
            warned.update(map(name_of, lines))
            yield
    ill: list[Port] = []
    for ports in pieces(facts.ports):
        ill += [port for port in ports if port.why and port.name not in warned]
        yield
    if not ill:
        return []
    if all(port.why for port in facts.ports):
        states = some([f"{port.name} {port.why}" for port in ill])
        return [Problem(ill[0].kind, f"no interface is attached and up: {states}")]
    found: dict[tuple[ProblemKind, str], list[str]] = {}
    for ports in pieces(ill):
        for port in ports:
            found.setdefault((port.kind, port.why), []).append(port.name)
        yield
    return [
        Problem(kind, f"{some(names)} {why if len(names) == 1 else _plural(why)}: nothing is answered there")
        for (kind, why), names in found.items()
    ]


def _name_of(line: str) -> str:
    return line.partition(": ")[0]


def _plural(why: str) -> str:
    verb, _, rest = why.partition(" ")
    return f"{ {'is': 'are', 'has': 'have'}.get(verb, verb) } {rest}"


def none_exists(absent: Sequence[str], present: Sequence[str]) -> str:
    """That none of the configured interfaces is on this machine: which these are, and which there are instead."""
    there = f"present: {some(present)}" if present else "none is present"
    return f"no configured interface exists: {some(absent)} ({there})"


def some(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - _MOST_NAMED
    return f"{', '.join(names[:_MOST_NAMED])}{f' and {more:,} more' if more > 0 else ''}"


def _grouped(lines: Iterable[str]) -> Steps[list[str]]:
    """Lines of the form "INTERFACE: what", the same of several interfaces as one."""
    found: dict[str, tuple[str, list[str]]] = {}  # the first line, and the names of the others
    for several in pieces(lines):
        for line in several:
            name, colon, text = line.partition(": ")
            kind = text.replace(name, "\0") if colon else line
            if (known := found.get(kind)) is None:
                found[kind] = line, []
            else:
                known[1].append(name)
        yield
    told: list[str] = []
    for alike in pieces(found.values()):
        told += [f"{first}; likewise {some(names)}" if names else first for first, names in alike]
        yield
    return told


_WORDS = {
    ProblemKind.LOST: "{} solicitations were lost on their way to Python, which is too slow for them",
    ProblemKind.FAILED: "{} advertisements couldn't be sent",
    ProblemKind.DRIVER: "the driver dropped {} of the answers by XDP (xdp_tx_errors)",
    ProblemKind.REFUSED: "no space was left for {}",
    ProblemKind.INTERNAL_ERROR: "{} internal errors; the log has each",
    ProblemKind.LOG: "{} lines were dropped, as the reader of stderr was too slow",
}


def _counted(facts: Facts) -> list[Problem]:
    found: dict[ProblemKind, list[Counted]] = {}
    for each in facts.counted:
        found.setdefault(each.kind, []).append(each)
    problems = []
    for kind, counted in found.items():
        names = [each.name for each in counted]
        number = f"{sum(each.total for each in counted):,}"
        if kind is ProblemKind.REFUSED:
            text = _WORDS[kind].format(some([f"{each.total:,} {each.name}" for each in counted]))
        else:
            text = f"{some(names)}: {_WORDS[kind].format(number)}"
        problems.append(Problem(kind, f"{text}; some in the last five minutes"))
    refused = facts.outcomes.get(Outcome.RATE_LIMITED, 0)
    if refused > MANY_REFUSED:
        text = f"limits have refused {refused:,} solicitations in the last five minutes"
        problems.append(Problem(ProblemKind.RATE_LIMITED, text))
    return problems


def _tables(facts: Facts) -> list[Problem]:
    """Until there is no space: that is told instead."""
    if any(each.kind is ProblemKind.REFUSED for each in facts.counted):
        return []
    return [
        Problem(ProblemKind.TABLE, f"limits.{name} is nearly full: {entries:,} of {limit:,} are there; raise it")
        for name, (entries, limit) in facts.tables.items()
        if entries > NEARLY_FULL * limit
    ]


def _routes(facts: Facts) -> list[Problem]:
    """What is in their way isn't known of each; the log has the first of it."""
    many = facts.routes_missing
    if not many:
        return []
    which = "1 host route is" if many == 1 else f"{many:,} host routes are"
    why = "the kernel has another route there, somebody removes ours, or the interface is down"
    return [Problem(ProblemKind.HOST_ROUTES, f"{which} missing: {why}; npd6-xdp status has each")]


def _unanswered(outcomes: Mapping[str, int], problems: Set[ProblemKind | WarningKind]) -> list[Problem]:
    """It is told beside all other problems, but for those that are the reason. What limits have refused, and that was
    told, is no question.
    """
    told = {Outcome.RATE_LIMITED} if ProblemKind.RATE_LIMITED in problems else set()
    in_vain = {str(name): outcomes[name] for name in IN_VAIN if outcomes.get(name) and name not in told}
    asked = sum(in_vain.values())
    if asked < MANY_UNANSWERED or problems & _EXPLAINING or any(outcomes.get(name) for name in ANSWERED):
        return []
    which = ", ".join(f"{name} {count:,}" for name, count in in_vain.items())
    text = f"none of {asked:,} solicitations in the last five minutes was answered: {which}; npd6-xdp trace says why"
    return [Problem(ProblemKind.UNANSWERED, text)]
