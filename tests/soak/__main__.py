# SPDX-License-Identifier: GPL-2.0-or-later
"""The one command: rounds of solicitations and changes, a count after each, a judgement and a plot at the end."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.tools.control import ask
from tests.arguments import positive
from tests.bench.generators import Order
from tests.bench.machine import HOME, describe
from tests.netns.wire import until
from tests.soak.changes import Changes, configuration
from tests.soak.ground import Driver, Ground, counted
from tests.soak.plot import svg
from tests.soak.samples import MIB, Growth, Sample, Watcher, growths, runs_counted
from tests.soak.traffic import generator

_SOLICITATIONS = 100_000_000
_RATE = 500_000.0  # a second, at most
_SETTLED = 50_000_000  # solicitations after which nothing is left to fill
_ROUND = 10.0  # seconds, at most
_ROUNDS = 16  # about, of a short run
_LEAST_ROUNDS = 8  # of which the second half can tell whether anything grows
_FULL_ROUNDS = 64  # of which it can tell that by a few hundred KiB: Python's memory goes up and down by more in each
_PORT = 3  # of so many rounds, one in which the port flaps as well
_SAMPLE = 1.0  # seconds
_START = 60.0  # seconds that the daemon's may take on a machine that does other things beside
_CALM = 10.0  # seconds that it may take until all is counted, and what was under way is over (wire.until() is patient)


@dataclass(slots=True)
class Result:
    """What came of it. `wrong` has a line for each thing that isn't as it should be."""

    sent: int = 0
    lost: int = 0
    passed: int = 0
    seen: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    returned: int = 0
    seconds: float = 0.0
    rounds: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    calm: list[Sample] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Soak:
    """One run, on its ground. `solicitations` that are to be counted, or None: as many as `seconds` bring."""

    def __init__(self, ground: Ground, seed: int, solicitations: int | None, seconds: float) -> None:
        self._ground = ground
        self._seed = seed
        self._wanted = solicitations
        self._seconds = seconds
        expected = seconds if solicitations is None else solicitations / _RATE
        self._round = max(min(_ROUND, expected / _ROUNDS), 0.5)
        self._began = time.monotonic()
        self.result = Result()

    def run(self) -> None:
        """Until enough is counted, or a round wasn't counted right: what follows would be as wrong."""
        with ExitStack() as stack:
            running = stack.enter_context(RunningDaemon(self._ground.topology, configuration(), timeout=_START))
            sender = stack.enter_context(generator(self._ground.topology, self._seed))
            watcher = Watcher(running.process.pid)
            changes = Changes(self._ground, running, self._seed)
            self._began = time.monotonic()
            before = self._ground.driver()
            try:
                while not self._is_over() and not self.result.wrong:
                    port = self.result.rounds % _PORT == _PORT - 1
                    with ExitStack() as counting:
                        if port:  # the driver also counts what it passes while it sets up the port
                            counting.enter_context(runs_counted())
                            seen = counting.enter_context(watcher.counting_runs())
                        else:
                            seen = partial(self._seen_by_driver, before)
                        sender.start(Order(_RATE, self._round))
                        if not self.result.rounds:
                            changes.grow()
                        self._live(changes, watcher, port=port)
                        sent = sender.finish().frames
                        changes.calm()
                        self._settle(running, seen)
                        self.result.rounds += 1
                        self.result.sent += sent
                        self._judge(running, self._ground.driver() - before, sent, seen(), port=port)
                    self._await_calm(running, watcher)
                    before = self._ground.driver()
                    self._say()
            finally:
                self.result.changes = changes.done
                self.result.seconds = time.monotonic() - self._began
            if not self.result.wrong:
                self._judge_end(running)

    def _say(self) -> None:
        result = self.result
        if result.rounds % 8 == 0:
            seconds = time.monotonic() - self._began
            print(
                f"soak: {seconds:6.1f} s  {result.rounds} rounds, {result.seen:,} counted", file=sys.stderr, flush=True
            )

    def _is_over(self) -> bool:
        is_full = self._wanted is not None and self._wanted >= _SETTLED
        if self.result.rounds < (_FULL_ROUNDS if is_full else _LEAST_ROUNDS):
            return False
        if self._wanted is None:
            return time.monotonic() - self._began >= self._seconds
        return self.result.seen >= self._wanted

    def _seen_by_driver(self, before: Driver) -> int:
        return (self._ground.driver() - before).seen

    def _live(self, changes: Changes, watcher: Watcher, *, port: bool) -> None:
        end = time.monotonic() + self._round
        next_sample = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= next_sample:
                self.result.samples.append(watcher.look(now - self._began))
                next_sample = now + _SAMPLE
            changes.happen(port=port)
            time.sleep(0.05)

    def _settle(self, running: RunningDaemon, seen: Callable[[], int]) -> None:
        """Python counts once it has answered."""
        already = self.result.outcomes.total()
        until(lambda: sum(counted(running).values()) - already == seen(), _CALM)

    def _judge(self, running: RunningDaemon, driver: Driver, sent: int, seen: int, *, port: bool) -> None:
        result, outcomes = self.result, Counter(counted(running))
        wrong = miscounts(sent, seen, driver, result.outcomes, outcomes, port=port)
        result.wrong += [f"round {result.rounds}: {line}" for line in wrong]
        result.seen += seen
        result.returned += driver.returned
        result.lost += sent - driver.seen
        result.passed += driver.seen - seen
        result.outcomes = outcomes
        if running.process.poll() is not None or "Traceback" in running.log:
            result.wrong.append(f"round {result.rounds}: the daemon has failed; its log ends: {running.log[-2000:]}")
        if silenced := [line for line in running.log.splitlines() if "stand beside the frames" in line]:
            result.wrong.append(f"round {result.rounds}: each tag stood in its frame, and it says: {silenced[0]}")

    def _await_calm(self, running: RunningDaemon, watcher: Watcher) -> None:
        until(lambda: ask(running.control, {"verb": "status"})["pending"] == [], _CALM)
        now = time.monotonic() - self._began
        sample = watcher.look(now, entries=True)
        if self.result.calm:  # what was for one moment only, such as the thread of the last scrape
            known = self.result.calm[-1]
            until(
                lambda: (look := watcher.look(now)).descriptors <= known.descriptors and look.threads <= known.threads
            )
            sample = watcher.look(now, entries=True)
        self.result.calm.append(sample)
        self.result.samples.append(sample)

    def _judge_end(self, running: RunningDaemon) -> None:
        result = self.result
        result.answers = self._ground.counter.counts().answers
        result.growths = growths(result.calm, settled=result.seen >= _SETTLED)
        for each in result.growths:
            if not each.flat:
                result.wrong.append(
                    f"{each.name} is not flat: it grew by {each.growth:,.0f} over the second half"
                    f" (mean {each.mean:,.0f}, allowed {each.allowed:,.0f})"
                )
        if (status := running.stop()) != 0:
            result.wrong.append(f"the daemon ended with status {status}")


def miscounts(
    sent: int, seen: int, driver: Driver, before: Counter[str], after: Counter[str], *, port: bool
) -> list[str]:
    """What is wrong about the counters of a round: a line each. So many were sent, and seen by the program.

    `port`: the port was down for a while, and nobody counts what is lost on the cable then.
    """
    wrong, grown = [], after - before
    if fewer := before - after:
        wrong.append(f"counters went back: {dict(fewer)}")
    elif grown.total() != seen:
        how = "missing" if grown.total() < seen else "counted twice"
        wrong.append(
            f"{abs(seen - grown.total()):,} solicitations are {how}: the program saw {seen:,},"
            f" and {grown.total():,} are counted"
        )
    if grown["answered_xdp"] != driver.returned:
        wrong.append(
            f"{grown['answered_xdp']:,} are counted as answered by XDP, and the driver sent {driver.returned:,} back"
        )
    if not seen <= driver.seen <= sent:
        wrong.append(f"{sent:,} were sent, the port saw {driver.seen:,}, and the program {seen:,}")
    if not port and sent != driver.taken + driver.refused:
        wrong.append(f"{sent:,} were sent, and {driver.taken + driver.refused:,} came to the port")
    if not port and driver.taken != seen:
        wrong.append(f"the port took {driver.taken:,}, and the program saw {seen:,}")
    return wrong


def report(result: Result, seed: int, machine: dict[str, str]) -> str:
    """What is printed and written, as Markdown."""
    seen = max(result.seen, 1)
    lines = [
        f"{result.seen:,} solicitations in {result.seconds:.0f} s, {result.rounds} rounds, seed {seed}"
        f" ({result.seen / max(result.seconds, 1):,.0f} a second, changes and counting included)",
        "",
        f"- sent {result.sent:,}; lost on the cable (the port's ring full, or the port down): {result.lost:,}; passed"
        f" by the driver while it set the port up or down: {result.passed:,}; seen by the program: {result.seen:,}",
        f"- counted: {result.outcomes.total():,}; answered by XDP {result.outcomes['answered_xdp']:,}, sent back by the"
        f" driver {result.returned:,}; advertisements that came to the asker: {result.answers:,}",
        f"- changes: {', '.join(f'{name} {count:,}' for name, count in sorted(result.changes.items()))}",
        "",
        "| outcome | solicitations | share |",
        "|---|---|---|",
        *(f"| {name} | {count:,} | {count / seen:.2%} |" for name, count in result.outcomes.most_common()),
        "",
        "| quantity, at the ends of the rounds | mean of the second half | growth there | allowed |",
        "|---|---|---|---|",
    ]
    for each in result.growths:
        unit = MIB if each.name in ("resident", "private", "map_memory") else 1
        name = f"{each.name}, MiB" if unit > 1 else each.name
        digits = 2 if unit > 1 else 0
        values = (f"{value / unit:,.{digits}f}" for value in (each.mean, each.growth, each.allowed))
        lines.append(f"| {name} | {' | '.join(values)} |")
    lines += ["", *(f"{what}: {value}  " for what, value in machine.items() if what != "peers")]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """0: each is counted once, and all is flat; 1: not, or it couldn't be done; 2: wrong arguments."""
    arguments = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("soak: needs root, for namespaces and XDP programs", file=sys.stderr)
        return 1
    try:  # an hour before it is needed
        arguments.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=arguments.output):
            pass
    except OSError as error:
        print(f"soak: --output {arguments.output}: can't write there: {error.strerror}", file=sys.stderr)
        return 2
    solicitations = arguments.solicitations
    if solicitations is None and arguments.minutes is None:
        solicitations = _SOLICITATIONS
    seed = int.from_bytes(os.urandom(4), "big") if arguments.seed is None else arguments.seed
    print(f"soak: seed {seed}", file=sys.stderr, flush=True)
    machine = describe()
    try:
        with Ground() as ground:
            soak = Soak(ground, seed, solicitations, (arguments.minutes or 0.0) * 60)
            try:
                soak.run()
            except KeyboardInterrupt:
                soak.result.wrong.append("interrupted")
    except (MachineError, OSError, RuntimeError) as error:
        print(f"soak: FAILED: {error}\n{getattr(error, 'log', '')}", file=sys.stderr)
        return 1
    result = soak.result
    text = report(result, seed, machine)
    _write(result, text, arguments.output)
    print(text, end="")
    for line in result.wrong:
        print(f"soak: FAILED: {line}", file=sys.stderr)
    if not result.wrong:
        print(f"soak: each of {result.seen:,} solicitations is counted once, and all is flat", file=sys.stderr)
    print(f"soak: written to {arguments.output}/", file=sys.stderr)
    return 1 if result.wrong else 0


def _write(result: Result, text: str, folder: Path) -> None:
    (folder / "report.md").write_text(text)
    (folder / "soak.svg").write_text(svg(f"{result.seen:,} solicitations", result.samples, result.calm))
    with (folder / "samples.csv").open("w", newline="") as file:
        rows = [{**asdict(sample), "entries": sum(sample.entries.values())} for sample in result.samples]
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["time"])
        writer.writeheader()
        writer.writerows(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="soak.sh", description="Soaks npd6-xdp; see docs/soak.md.")
    until_when = parser.add_mutually_exclusive_group()
    until_when.add_argument(
        "--solicitations", type=_positive, metavar="N", help=f"until so many are counted; else {_SOLICITATIONS:,}"
    )
    until_when.add_argument("--minutes", type=positive, metavar="M", help="for so long, instead")
    parser.add_argument(
        "--seed", type=int, metavar="SEED", help="of what is asked and what happens; else another each time"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=HOME / "soak-results",
        metavar="DIR",
        help="where to write; else soak-results/ here",
    )
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text.replace("_", "").replace(",", ""))
    except ValueError:
        number = 0
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
