# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests share: a topology of their own, and which may run at the same time; in CI, a skipped test fails."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import signal
import tempfile
from collections.abc import Collection, Generator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from npd6_xdp.lab.topology import Topology
from tests import times
from tests.lanes import dealt

try:
    from xdist import is_xdist_worker
except ImportError:  # then all tests run one by one

    def is_xdist_worker(request_or_session: object) -> bool:
        return False


# A machine that pauses for a moment, or is slow, is no fault of the code.
settings.register_profile("npd6-xdp", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("npd6-xdp"), max_examples=10)  # make test-core
settings.load_profile("npd6-xdp")

CI = os.environ.get("CI") == "true"

# As from a terminal, however the tests were started: what ignores a signal hands that on to all that it starts, and
# tests send these to what they start. (nohup ignores SIGHUP, and a script SIGINT for what it runs in the background.)
for _number, _usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# One start compiles the XDP program for all daemons of this run and of those that follow.
os.environ["CACHE_DIRECTORY"] = str(Path(__file__).resolve().parents[1] / ".venv/cache")


# Of what takes a minute, the rest is not to wait for it at the end; what takes a moment fills the gaps there.
LONG = (("vagrant", "package", "test_lab"), ("bench", "fuzz", "prometheus"))
HEAVY = ("datapath", "netns")
ALONE = ("alone", "fills_table")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--times", action="store_true", help="say at the end which tests and files took how much CPU and time"
    )
    parser.addoption(
        "--full", action="store_true", help="only the tests that usually are a slice of something large, and all of it"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--times"):
        config.pluginmanager.register(times.Measured())
        if not hasattr(config, "workerinput"):
            config.pluginmanager.register(times.Summed())


def _has_workers(config: pytest.Config) -> bool:
    return config.pluginmanager.has_plugin("dsession")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under -n, this process needn't read modules none of whose tests it will have; that takes seconds."""
    if _has_workers(config) and collection_path.suffix == ".py" and not _says_alone(collection_path):
        return True
    return None


def _is_alone(item: pytest.Item) -> bool:
    """One that fills the neighbour table is, too: nearly every other test on namespaces has some host resolved."""
    return any(item.get_closest_marker(name) for name in ALONE)


def _says_alone(path: Path) -> bool:
    text = path.read_bytes()
    return any(f"pytest.mark.{name}".encode() in text for name in ALONE)


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Under -n, xdist's workers have those tests that may run side by side, and this process has the others."""
    if session.config.getoption("--full"):
        items[:] = [item for item in items if item.get_closest_marker("sliced")]
    if is_xdist_worker(session):
        alone = [item for item in items if _is_alone(item)]
        assert all(_says_alone(item.path) for item in alone), "else nobody would run it"
        items[:] = [item for item in items if item not in alone]
        items[:] = _in_order(
            items,
            workers=session.config.workerinput["workercount"],  # type: ignore[attr-defined]  # xdist's
        )
    elif _has_workers(session.config):
        items[:] = [item for item in items if _is_alone(item)]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made, and stay: the garbage collector looks at none of them, now or later. It would take
    each worker half of the time until its first test.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _in_order(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Two workers begin with the long tests, the others share those on namespaces; what takes a moment comes last."""
    lanes = [[item for name in names for item in items if _is_of(item, [name])] for names in LONG]
    rest = [item for item in items if not any(_is_of(item, names) for names in LONG)]
    heavy = [item for item in rest if _is_of(item, HEAVY)]
    light = [item for item in rest if not _is_of(item, HEAVY)]
    if others := max(0, workers - len(lanes)):
        lanes += [heavy[len(heavy) * n // others : len(heavy) * (n + 1) // others] for n in range(others)]
        return dealt(lanes, light)
    return dealt(lanes, [*heavy, *light])


def _is_of(item: pytest.Item, names: Collection[str]) -> bool:
    """Whether these have its room or its file."""
    return item.path.parent.name in names or item.path.stem in names


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Under -n, run those that need the machine to themselves when the workers are gone."""
    done = yield
    if _has_workers(session.config):
        beside = session.testscollected
        session.perform_collect()
        session.testscollected += beside
        if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.ensure_newline()
            reporter.write_line(
                f"{beside} ran side by side; {len(session.items)} that need the machine to themselves follow"
            )
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
def full(request: pytest.FixtureRequest) -> bool:
    """Whether a test that is marked `sliced` is to run at full size."""
    return bool(request.config.getoption("--full"))


TABLE = Path("/run/lock/npd6-xdp-tests-neighbour-table")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """A test that runs a command in this process has the log go elsewhere: the next one finds it as it was."""
    ours, root = logging.getLogger("npd6-xdp"), logging.getLogger()
    before = [(each, each.handlers[:], each.level, each.propagate) for each in (ours, root)]
    yield
    for each, handlers, level, propagate in before:
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


@pytest.fixture(autouse=True)
def neighbour_table(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that fills the kernel's neighbour table never runs beside one that needs it, of another run either."""
    fills, needs = (request.node.get_closest_marker(name) for name in ("fills_table", "needs_table"))
    if os.geteuid() != 0 or not (fills or needs):
        yield
        return
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if fills else fcntl.LOCK_SH)
        yield


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """A directory where every user may look. pytest's own tmp_path is below one that is root's alone, and that each
    pytest which starts on this machine makes so again, whatever a test has made of it.
    """
    with tempfile.TemporaryDirectory(prefix="npd6-xdp-", dir="/tmp") as name:
        found = Path(name)
        found.chmod(0o755)
        yield found


@pytest.fixture
def topology() -> Iterator[Topology]:
    """Three namespaces, fresh for this test (it takes about 60 ms)."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Topology() as topology:
        # Five seconds after it was in touch with the edge, the upstream's kernel would ask whether it is still there:
        # one solicitation among those that a test counts, where the machine is slow.
        topology.sysctl("upstream", "net/ipv6/neigh/eth0/delay_first_probe_time", 3600)
        yield topology
