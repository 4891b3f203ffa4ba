# SPDX-License-Identifier: GPL-2.0-or-later
"""Under CI a test that is skipped has failed: what it would have seen, nobody has."""

from __future__ import annotations

import os

import pytest

CI = os.environ.get("CI") == "true"


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
