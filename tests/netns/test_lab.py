# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab as a user runs it: it tells the truth in its output and its exit status, and cleans up either way."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

import npd6_xdp
from npd6_xdp.lab.daemon import RunningDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

SYSTEM_DIRECTORIES = "/usr/sbin:/usr/bin:/sbin:/bin"

# The lab with another program in the daemon's place; its arguments are that program's.
WITH_ANOTHER_DAEMON = "import sys; from npd6_xdp.lab import story; sys.exit(story.run(program=sys.argv[1:]))"


def start(*argv: str, **environment: str) -> subprocess.Popen[str]:
    """Start Python with these arguments, as from a checkout."""
    return subprocess.Popen(
        [sys.executable, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(npd6_xdp.__file__).parents[1],
        env={**os.environ, **environment},
    )


def left_of(process: subprocess.Popen[str]) -> list[Path]:
    """The namespaces and files that a lab has left behind."""
    return [path for place in ("/run/netns", "/run") for path in Path(place).glob(f"npd6-{process.pid}-*")]


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments to its end, after which nothing may be left of its lab."""
    return end_of(start(*argv, **environment))


def end_of(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for its end, after which nothing may be left of its lab."""
    out, err = process.communicate(timeout=600)
    print(out, err)  # for pytest to show when a test fails
    assert left_of(process) == []
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@dataclass(frozen=True)
class Labs:
    """What two of them told: the lab, and one with a daemon that only counts."""

    real: subprocess.CompletedProcess[str]
    counting: subprocess.CompletedProcess[str]

    @classmethod
    def run(cls) -> Labs:
        """Each waits most of the time, so they run side by side."""
        monitor = 's/^datapath = .*/datapath = "monitor"/'
        count_only = f'[ $1 != run ] || sed -i \'{monitor}\' "$3"; exec "$0" -m npd6_xdp "$@"'
        with ExitStack() as stack:
            words = (["-m", "npd6_xdp", "lab"], ["-c", WITH_ANOTHER_DAEMON, "sh", "-c", count_only, sys.executable])
            labs = [stack.enter_context(start(*each)) for each in words]
            for each in labs:
                stack.callback(each.terminate)
            return cls(*map(end_of, labs))


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Labs:
    """Run once, also where several workers have tests of this file."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    with (place / "labs.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not (known := file.read()):
            ran = Labs.run()
            file.write(known := json.dumps([vars(ran.real), vars(ran.counting)]))
    return Labs(*(subprocess.CompletedProcess(**each) for each in json.loads(known)))


@pytest.fixture
def told(labs: Labs) -> subprocess.CompletedProcess[str]:
    """The lab."""
    return labs.real


def test_every_check_holds(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 0
    assert re.search(r"all \d+ checks held, in \d+ s", told.stdout)
    assert "FAILED" not in told.stdout
    assert told.stderr == ""


def test_it_takes_less_than_two_minutes(told: subprocess.CompletedProcess[str]) -> None:
    seconds = re.search(r"in (\d+) s\n", told.stdout)
    assert seconds
    assert int(seconds[1]) < 120


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(r"Act 1.*Address unreachable.*Act 2", id="unreachable without the daemon"),
        pytest.param(r"Act 2.*3 received.*Act 3.*3 received.*Act 4", id="reachable in both datapaths"),
        pytest.param(
            r"Act 5.*0 received.*trace .*absent.*doctor .*\$ (ip -6 route replace \S+ dev lan0)\n.*edge# \1\n.*3 rec",
            id="what trace and doctor say, and that it mends it",
        ),
        pytest.param(r"Act 2.*3 received.*SIGTERM.*Address unreachable.*Act 3", id="unreachable when it ended"),
        pytest.param(r"2001:db8:1::42 is at 02:00:00:00:00:02 .*R=1 S=1 O=0", id="the decoded advertisement"),
        pytest.param(r"2001:db8:1::42 lladdr 02:00:00:00:00:02", id="the upstream's neighbour entry"),
        pytest.param(r"Target link-layer address: 02:00:00:00:00:02", id="ndisc6's answer"),
        pytest.param(r'outcome="answered_xdp".*Act 3.*outcome="answered_python"', id="each path's counter"),
        pytest.param(r"ok +NA bytes, compared with act 2's +equal +equal", id="both paths' equality"),
        pytest.param(r"ok +wan0 after kill -9 +nothing left on it", id="nothing left after kill -9"),
    ],
)
def test_it_shows(told: subprocess.CompletedProcess[str], claim: str) -> None:
    assert re.search(claim, told.stdout, re.DOTALL)


def test_it_is_plain_text_of_less_than_100_columns_when_not_on_a_terminal(
    told: subprocess.CompletedProcess[str],
) -> None:
    assert "\033" not in told.stdout
    assert max(len(line) for line in told.stdout.splitlines()) < 100


def test_a_trace_that_sees_nothing_is_ended_so_that_the_lab_tells_of_it_and_goes_on() -> None:
    with subprocess.Popen(("sleep", "600"), stdout=subprocess.PIPE, text=True) as trace:
        assert RunningDaemon.told_by(trace, seconds=0.1) == ""
    assert trace.returncode == -signal.SIGKILL


def test_a_daemon_that_does_not_start_fails_the_lab_and_its_log_is_shown() -> None:
    told = run("-c", WITH_ANOTHER_DAEMON, "sh", "-c", "echo no such luck >&2; exit 7", "--")
    assert told.returncode == 1
    assert "exit status 7" in told.stdout
    assert "no such luck" in told.stdout
    assert "checks FAILED" in told.stdout


def test_a_daemon_that_only_counts_fails_the_lab(labs: Labs) -> None:
    told = labs.counting
    assert told.returncode == 1
    for check in (
        r"ping the host +3 of 3 answered +0 of 3 answered",
        r"advertisement for the host +one +none",
        r"the upstream's neighbour entry +02:00:00:00:00:02 +none",
        r"ndisc6 2001:db8:1::42 +02:00:00:00:00:02 +silence",
        r"captured = counted: NS monitored +0 +[1-9]",
    ):
        assert re.search(rf"  FAILED  {check}\n", told.stdout)
    assert "Who wrote the answers" not in told.stdout
    assert re.search(r"\d+ of \d+ checks FAILED", told.stdout)


def test_a_signal_ends_it_and_nothing_is_left() -> None:
    """A lab for each signal, side by side, as what they do first is to wait."""
    with ExitStack() as stack:
        labs = {}
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            labs[signum] = stack.enter_context(start("-m", "npd6_xdp", "lab"))
            stack.callback(labs[signum].terminate)
        for signum, process in labs.items():
            assert process.stdout
            for line in process.stdout:
                if "ready" in line:  # the daemon runs
                    break
            process.send_signal(signum)
            _, err = process.communicate(timeout=600)
            assert process.returncode == 128 + signum
            assert err == f"npd6-xdp lab: stopped by {signum.name}; the namespaces are removed\n"
            assert left_of(process) == []


def test_without_a_tool_it_names_the_package(tmp_path: Path) -> None:
    for directory in reversed(SYSTEM_DIRECTORIES.split(":")):
        for tool in Path(directory).glob("*"):
            if tool.name != "ndisc6" and not (tmp_path / tool.name).exists():
                (tmp_path / tool.name).symlink_to(tool)
    told = run("-m", "npd6_xdp", "lab", PATH=str(tmp_path))
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1
    assert "ndisc6 not found" in told.stderr
    assert "apt install ndisc6" in told.stderr
    assert told.stdout == ""
