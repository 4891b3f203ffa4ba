# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests share: a topology of their own; under CI one that is skipped has failed, no example is too slow."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from itertools import pairwise

import pytest
from hypothesis import settings
from xdist import is_xdist_worker

from npd6_xdp.lab.topology import Topology

# A machine that pauses for a moment is no fault of the code.
settings.register_profile("npd6-xdp", deadline=None)
settings.load_profile("npd6-xdp")

CI = os.environ.get("CI") == "true"


def _has_workers(session: pytest.Session) -> bool:
    return session.config.pluginmanager.has_plugin("dsession")


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Under -n, xdist's workers have those tests that may run side by side, and this process has the others."""
    if is_xdist_worker(session):
        items[:] = [item for item in items if not item.get_closest_marker("alone")]
    elif _has_workers(session):
        items[:] = [item for item in items if item.get_closest_marker("alone")]


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Under -n, run those that need the machine to themselves when the workers are gone."""
    done = yield
    if _has_workers(session):
        beside = session.testscollected
        session.perform_collect()
        session.testscollected += beside
        for item, following in pairwise([*session.items, None]):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
    return done


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", ())) if reporter else 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make the run fail."""
    if CI and _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why."""
    if CI and (skipped := _skipped(config)):
        terminalreporter.section("skipped under CI", red=True, bold=True)
        terminalreporter.line(f"CI=true: {skipped} skipped, so the run fails")


@pytest.fixture
def topology() -> Iterator[Topology]:
    """Three namespaces, fresh for this test (it takes about 60 ms)."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Topology() as topology:
        yield topology
