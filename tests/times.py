# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a run's time goes: --times, for each test and file, by its own CPU, its children's, and the wall clock."""

from __future__ import annotations

import resource
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from dataclasses import dataclass, fields
from typing import Any

import pytest

_KEY = "times"
_others: list[float] = []
_TESTS = 100  # the greatest, of which each has a line


@dataclass(frozen=True)
class Times:
    """Seconds: of the wall clock, of this process on a CPU, and of those that it started and that have ended."""

    wall: float = 0.0
    own: float = 0.0
    children: float = 0.0

    @classmethod
    def so_far(cls) -> Times:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return cls(time.monotonic(), own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime + sum(_others))

    def __add__(self, other: Times) -> Times:
        return Times(self.wall + other.wall, self.own + other.own, self.children + other.children)

    def __sub__(self, other: Times) -> Times:
        return Times(self.wall - other.wall, self.own - other.own, self.children - other.children)

    @property
    def cpu(self) -> float:
        return self.own + self.children

    def __str__(self) -> str:
        return f"{self.cpu:8.2f} {self.own:8.2f} {self.children:8.2f} {self.wall:8.2f}"


def of_others(seconds: float) -> None:
    """So much CPU took a process that was started for a test, though not by this process."""
    _others.append(seconds)


class Measured:
    """In each process that runs tests. What a fixture for many tests takes, the first and the last of them have."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Generator[None, object, object]:
        self._since = Times.so_far()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, Any]:
        report = yield
        if call.when == "teardown":  # the last of a test; xdist hands on what it says
            took = Times.so_far() - self._since
            report.user_properties.append((_KEY, [getattr(took, field.name) for field in fields(took)]))
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output[_KEY] = Times.so_far().own


class Summed:
    """In the process that reports."""

    def __init__(self) -> None:
        self._tests: dict[str, Times] = {}
        self._processes = 0.0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, value in report.user_properties:
            if key == _KEY and report.when == "teardown":
                self._tests[report.nodeid] = Times(*value)  # type: ignore[misc]  # user_properties are of objects

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """One of xdist's workers has ended."""
        self._processes += getattr(node, "workeroutput", {}).get(_KEY, 0.0)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files, counts = defaultdict[str, Times](Times), Counter[str]()
        for test, times in self._tests.items():
            name = test.partition("::")[0]
            files[name] += times
            counts[name] += 1
        total = sum(files.values(), Times())
        line, beside = terminalreporter.line, self._processes + Times.so_far().own - total.own
        terminalreporter.section("times, in seconds")
        line("     CPU      own children     wall")
        line(f"{total} all {len(self._tests)} tests; beside them, to collect and share them out, {beside:.2f} of CPU")
        for name, times in _greatest(files.items()):
            line(f"{times} {name} ({counts[name]})")
        line(f"the {min(_TESTS, len(self._tests))} tests that took most:")
        for name, times in _greatest(self._tests.items())[:_TESTS]:
            line(f"{times} {name}")


def _greatest(times: Iterable[tuple[str, Times]]) -> list[tuple[str, Times]]:
    return sorted(times, key=lambda each: each[1].cpu, reverse=True)
