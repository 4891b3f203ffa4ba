# SPDX-License-Identifier: GPL-2.0-or-later
"""Row 16: tc against generic XDP on the same veth, and what the program at tc costs others' traffic."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import ask
from tests.bench import program
from tests.bench.asker import LOST, Asker, pinned
from tests.bench.generators import Generator, paced
from tests.bench.ground import Ground
from tests.bench.plan import Run
from tests.bench.rates import look_at_answers, offer
from tests.bench.results import Bound, Figure, at_least, at_most, middle
from tests.bench.rows.cost import FOREIGN
from tests.bench.subjects import Running, npd6_xdp, npd6_xdp_config
from tests.netns.others import at_tc

_TC, _GENERIC = "tc", "generic"
_CPU = 0
_WARM_UP = 50
_TURNS = 3  # in which a round of other rows is spent here: the two differ by little, so more depends on when
_SUBJECT = npd6_xdp("npd6-xdp hybrid, tc and generic", npd6_xdp_config("hybrid", _GENERIC))


@dataclass(slots=True)
class _Turns:
    """A value a round, by how it is attached: answers a second, and microseconds."""

    floods: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    medians: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    unanswered: int = 0


def measure(run: Run) -> None:
    """One daemon on one ground goes from the one to the other and back, by reloads."""
    turns = _Turns()
    with Ground(sample=1024) as ground, _SUBJECT.on(ground) as running:
        with paced(ground.topology, _SUBJECT.questions) as generator:
            for number in range(run.plan.latency_rounds * _TURNS):
                for attach in (_TC, _GENERIC) if number % 2 else (_GENERIC, _TC):
                    _attach(ground.topology, running, attach)
                    _one_at_a_time(run, ground, running, turns, attach)
                    _flood(run, ground, generator, turns, attach)
        look_at_answers(run, ground, _SUBJECT)
    lost = f"; {turns.unanswered:,} unanswered" if turns.unanswered else ""
    _ratio(run, "answers under a flood", turns.floods, "NA/s", at_least(1), lost)
    _ratio(run, "one at a time, on one CPU, median", turns.medians, "us", at_most(1), "")
    _others(run)


def _attach(topology: Topology, running: Running, attach: str) -> None:
    """What is measured sits where it is said to."""
    assert running.daemon is not None
    running.daemon.write(npd6_xdp_config("hybrid", attach))
    ask(running.daemon.control, {"verb": "reload"})
    found = at_tc(topology), topology.xdp_mode("edge", "wan0")
    if found != ((["ns_filter_tc"], None) if attach == _TC else ([], _GENERIC)):
        raise RuntimeError(f"attach = {attach!r}, and at tc and as XDP there is {found}")


def _one_at_a_time(run: Run, ground: Ground, running: Running, turns: _Turns, attach: str) -> None:
    """As in row 8."""
    assert running.process is not None
    with Asker(ground, spin=False) as asker, pinned(_CPU, running.process.pid):
        asker.ask(_SUBJECT.questions, _WARM_UP)
        taken = asker.ask(_SUBJECT.questions, run.plan.latency_samples)
    turns.medians[attach].append(middle(taken))
    turns.unanswered += taken.count(LOST)


def _flood(run: Run, ground: Ground, generator: Generator, turns: _Turns, attach: str) -> None:
    """All that can be sent: veth has it answered in the sender's softirq, so its end is the answerer's, too."""
    seconds = run.plan.flood / _TURNS
    load = offer(ground, [generator], None, seconds)
    turns.floods[attach].append(load.answered)
    turns.unanswered += round(load.sent * seconds * (1 - load.share))
    run.say(f"row 16: {attach}: {turns.medians[attach][-1]:.2f} us, {load.answered:,.0f}/s of {load.sent:,.0f}/s")


def _ratio(run: Run, name: str, values: defaultdict[str, list[float]], unit: str, bound: Bound, note: str) -> None:
    """The median of the rounds', in each of which the two are neighbours in time."""
    ratio = middle([one / other for one, other in zip(values[_TC], values[_GENERIC], strict=True)])
    said = " over ".join(f"{middle(values[attach]):,.{2 if unit == 'us' else 0}f}" for attach in (_TC, _GENERIC))
    raw = {f"{attach}, {unit}": each for attach, each in values.items()}
    run.results.figures.append(
        Figure(16, f"tc over generic XDP: {name}", ratio, "times", bound, raw, f"{said} {unit}{note}")
    )


def _others(run: Run) -> None:
    """The frames of row 1, by tc. As in row 14, both programs are loaded anew again and again."""
    over: defaultdict[str, list[float]] = defaultdict(list)
    bare: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(run.plan.loads):
        with program.loaded(program.one_prefix()) as bench, program.bare_program_at_tc() as passing:
            for name, frame in FOREIGN.items():
                fd = bench.ns_filter.program.tc_fd
                cost = program.cost_of_a_frame(fd, passing, frame, run.plan.growth_program, at_tc=True)
                over[name].append(cost.median)
                bare[name].append(middle(cost.bare))
    for name in FOREIGN:
        nanoseconds, each = middle(over[name]), middle(bare[name])
        raw = {"over, ns, a load each": over[name], "bare, ns, a load each": bare[name]}
        said = f"{nanoseconds:+.1f} ns; the bare one takes {each:.0f}"
        label = f"{name}, passed on by tc, over a bare program of tc's"
        run.results.figures.append(Figure(16, label, nanoseconds / each, "times", at_most(0.1), raw, said))
        run.say(f"row 16: {name}: {nanoseconds:+.1f} ns, {nanoseconds / each:+.2f} times bare")
