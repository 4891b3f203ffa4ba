# SPDX-License-Identifier: GPL-2.0-or-later
"""The walks of docs/architecture.md, "Walks", as a daemon takes them: these rooms, and none called back."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.netns.wire import Wire, configuration, on_edge, question, says, until
from tests.walks import PROJECT, Step, Walked, among, steps

TRACED = Path(__file__).with_name("traced.py")
RULES = ("2001:db8:1::/64 neighbour via=lan0", "2001:db8:2::/64 static")
ONE_MORE = "2001:db8:3::42 static"
WARNED_OF = "2001:db8:4::/64 neighbour via=missing0"
"""What there is to warn of is shown where it changes."""
ANOTHER_HOST = "2001:db8:1::43"
KERNELS_WORD = re.compile(r"daemon/loop\.py:\S+ daemon/hosts\.py:")
"""That of the neighbour table: the walk that asks for it has ended."""
EACH_SECOND = re.compile(r"daemon/loop\.py:Loop\._tick daemon/ports\.py:Ports\.tick daemon/port_looks\.py:")
"""It comes by the clock, into any walk that takes its time."""

Start = Callable[..., RunningDaemon]


class Traced:
    """What a daemon has written down so far."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.lines: list[str] = []
        """Of the last `while_so()`."""

    def _read(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    @contextmanager
    def while_so(self, running: RunningDaemon, last: str) -> Iterator[None]:
        """Take what is written within the block, until a function was called that comes last."""
        running.settle()
        before = len(self._read())
        yield
        assert until(lambda: any(line.rstrip("*").endswith(last) for line in self._read()[before:])), f"no {last}"
        running.settle()
        self.lines = [line for line in self._read()[before:] if not EACH_SECOND.search(line)]


@pytest.fixture
def traces(topology: Topology, daemon: Start) -> dict[str, list[str]]:
    """A trace of one of each: by the walk's title."""
    file = topology.directory / "trace"
    program = (sys.executable, str(TRACED), str(file))
    keys = {"datapath": '"python"'}
    running = daemon(configuration(*RULES, **keys), program=program, environment={"PYTHONPATH": str(PROJECT)})
    traced, found = Traced(file), {}
    with Wire(topology) as wire:
        with traced.while_so(running, "system/sender.py:Port.send"):
            assert wire.ask(question("2001:db8:2::1")) is not None
        found["A solicitation that Python answers"] = traced.lines
        with traced.while_so(running, "daemon/counts.py:Counts.count_late"):
            assert wire.ask(question(HOST_ADDRESS)) is not None
        found["A target that isn't known yet"] = [line for line in traced.lines if not KERNELS_WORD.search(line)]
        found["The answer to who has waited"] = traced.lines
        with traced.while_so(running, "system/bpf/ns_filter.py:NsFilter.set_present"):
            on_edge(topology, f"neigh replace {ANOTHER_HOST} lladdr 02:00:00:00:00:42 nud permanent dev lan0")
        found["A neighbour's change"] = traced.lines
        assert wire.ask(question(ONE_MORE.split()[0]), 0.1) is None
        running.write(configuration(*RULES, **keys, multicast_router="true"))
        assert running.command("reload").returncode == 0
        assert until(lambda: "announced as a multicast router" in running.log)
        running.write(configuration(*RULES, ONE_MORE, WARNED_OF, **keys))
        with traced.while_so(running, "daemon/view.py:View.in_use"):
            running.process.send_signal(signal.SIGHUP)
            assert says(running, "the new configuration is in use", 2)
        found["A reload"] = found["A line of the file, at a reload"] = traced.lines
        assert wire.ask(question(ONE_MORE.split()[0])) is not None
        with traced.while_so(running, "daemon/tags.py:Tags.settle"):
            on_edge(topology, "address add 2001:db8:7::77/64 dev wan0 nodad")
        found["A change of the machine"] = traced.lines
        with traced.while_so(running, "system/http/site.py:Site.answer"):
            running.metrics_text()
        found["A scrape"] = traced.lines
    return found


def said(walk: list[Step], walked: Walked) -> list[str]:
    """What of a walk isn't as the page has it."""
    names = {f"{step.file}:{step.function}": step.file for step in walk if step.file.endswith(".py")}
    wrong, above = [f"called back: {each}" for each in sorted(walked.called_back)], {""}
    if [*walked.called_by] != [*names]:
        wrong.append(f"these are called, in this order: {[*walked.called_by]}")
    for name, file in names.items():
        if (caller := walked.called_by.get(name, "")) not in above:
            wrong.append(f"{name} is called by {caller}, which isn't above it")
        above.add(file)
    return wrong


@pytest.mark.needs_table
def test_the_daemon_walks_as_the_page_says_and_calls_no_room_above(traces: dict[str, list[str]]) -> None:
    wrong = {}
    for title, trace in traces.items():
        walked = Walked(steps(title), trace)
        print(f"{title}: {len(steps(title))} rooms; with those that are asked by the way {len(walked.rooms)} files")
        if problems := said(steps(title), walked):
            wrong[title] = problems
    assert not wrong, "\n".join(f"{title}: {line}" for title, lines in wrong.items() for line in lines)
    assert Walked(steps("A reload"), traces["A reload"]).among == among()
