# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether another process of the service is to come, as deploy/systemd/next has it of what systemd says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NEXT = Path(__file__).resolve().parents[2] / "deploy/systemd/next"
_SCRIPT = """
mount -t tmpfs tmpfs /run && echo "start 1.00 dead $2" >/run/npd6-xdp.next && "$1"
code=$?
cat /run/npd6-xdp.next
exit $code
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root, for a /run of its own")


def said(tmp_path: Path, result: str, status: str, systemctl: str, unready: int = 0) -> tuple[str, str]:
    """What it decides, where systemctl(1) does this, and what it says besides; whatever was decided before."""
    command = tmp_path / "systemctl"
    command.write_text(f"#!/bin/sh\n{systemctl}\n")
    command.chmod(0o755)
    (tmp_path / "systemd-run").write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/late\n')
    (tmp_path / "systemd-run").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SERVICE_RESULT": result}
    environment |= {"EXIT_STATUS": status, "INVOCATION_ID": "5eed"}
    words = ("unshare", "--mount", "sh", "-c", _SCRIPT, "sh", NEXT, str(unready))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    decision, up, run, _ = done.stdout.split()
    assert run == "5eed"
    assert 0 <= float(Path("/proc/uptime").read_text().split()[0]) - float(up) < 600
    return decision, done.stderr


@pytest.mark.parametrize(
    ("result", "status", "decision"),
    [
        ("success", "0", "stop"),
        ("success", "TERM", "stop"),
        ("exit-code", "1", "start"),
        ("exit-code", "2", "stop"),
        ("exit-code", "203", "stop"),
        ("exit-code", "22", "start"),
        ("signal", "KILL", "start"),
        ("core-dump", "SEGV", "start"),
        ("watchdog", "ABRT", "start"),
        ("oom-kill", "KILL", "start"),
        ("timeout", "KILL", "start"),
        ("protocol", "0", "start"),
    ],
)
@pytest.mark.parametrize("start", [False, True], ids=["by itself", "while it was started"])
def test_without_a_job_it_is_as_the_unit_has_it_and_a_start_under_way_is_the_one_that_failed(
    tmp_path: Path, result: str, status: str, decision: str, start: bool
) -> None:
    job = "echo '212 npd6-xdp.service start running'" if start else ":"
    assert said(tmp_path, result, status, job) == (decision, "")


@pytest.mark.parametrize(
    ("result", "job", "is_looked_after"),
    [
        ("signal", ":", True),
        ("success", ":", False),
        ("signal", "echo '7 npd6-xdp.service restart running'", False),
        ("signal", "echo '7 npd6-xdp.service stop running'", False),
    ],
)
def test_only_where_it_comes_back_by_itself_somebody_sees_whether_it_does(
    tmp_path: Path, result: str, job: str, is_looked_after: bool
) -> None:
    said(tmp_path, result, "KILL", job)
    late = tmp_path / "late"
    assert late.exists() == is_looked_after
    if is_looked_after:
        assert late.read_text().endswith(f"-- {NEXT} --late npd6-xdp.service /run/npd6-xdp.next 5eed\n")


@pytest.mark.parametrize(
    ("state", "run", "is_cleaned"),
    [
        ("ActiveState=inactive SubState=dead Job=", "5eed", True),
        ("ActiveState=failed SubState=failed", "5eed", True),
        ("ActiveState=inactive SubState=dead Job=", "another", False),
        ("ActiveState=activating SubState=start Job=9", "5eed", False),
        ("ActiveState=active SubState=running Job=", "5eed", False),
    ],
)
def test_what_is_left_goes_where_the_next_process_doesnt_come(
    tmp_path: Path, state: str, run: str, is_cleaned: bool
) -> None:
    commands = {
        "systemctl": f"printf '%s\\n' {state} User=nobody",
        "setpriv": f'echo "$*" >{tmp_path}/cleaned',
        "sleep": "",
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    said_file = tmp_path / "npd6-xdp.next"
    said_file.write_text(f"start 1.00 {run} 0\n")
    words = (NEXT, "--late", "npd6-xdp.service", said_file, "5eed")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(words, env=environment, check=True, timeout=60)
    cleaned = tmp_path / "cleaned"
    assert cleaned.exists() == is_cleaned
    if is_cleaned:
        assert cleaned.read_text().endswith(f"{NEXT.parent}/clean {tmp_path}/npd6-xdp\n")
        assert cleaned.read_text().startswith("--reuid=nobody --regid=nobody --clear-groups --no-new-privs")


@pytest.mark.parametrize(
    ("job", "decision"),
    [
        ("restart running", "start"),
        ("restart waiting", "start"),
        ("try-restart running", "start"),
        ("start waiting", "start"),
        ("stop running", "stop"),
        ("stop waiting", "stop"),
    ],
)
@pytest.mark.parametrize("ended", [("success", "0"), ("exit-code", "1"), ("exit-code", "2"), ("signal", "KILL")])
def test_a_job_decides_however_the_process_has_ended(
    tmp_path: Path, job: str, decision: str, ended: tuple[str, str]
) -> None:
    assert said(tmp_path, *ended, f"echo '7 npd6-xdp.service {job}'") == (decision, "")


@pytest.mark.parametrize("ended", [("success", "0"), ("signal", "KILL")])
def test_where_systemd_says_nothing_all_is_taken_away_and_that_is_said(tmp_path: Path, ended: tuple[str, str]) -> None:
    decision, words = said(tmp_path, *ended, "echo 'Failed to connect to bus' >&2; exit 1")
    assert decision == "stop"
    assert "warning: systemd doesn't say whether this is the end: what was added to the kernel is taken away\n" in words


def test_it_asks_again_where_systemd_is_busy(tmp_path: Path) -> None:
    answer = (
        f"[ -e {tmp_path}/asked ] && exec echo '7 npd6-xdp.service restart running'; touch {tmp_path}/asked; exit 1"
    )
    assert said(tmp_path, "success", "0", answer) == ("start", "")


SHOWN = """
case $1 in
    show) printf '%s=%s\\n' {} ;;
    list-jobs) {} ;;
    stop) echo "asked: $*" >&2 ;;
esac
"""
JOB, RESTART = "echo '7 npd6-xdp.service start running'", "echo '7 npd6-xdp.service restart running'"


@pytest.mark.parametrize(
    ("times", "job", "before", "stops"),
    [
        ("5 7 3", ":", 3, True),
        ("5 7 3", JOB, 3, True),
        ("0 7 3", ":", 3, True),
        ("5 7 3", ":", 2, False),
        ("5 7 0", ":", 3, False),
        ("9 7 3", ":", 3, False),
        ("5 7 3", RESTART, 3, False),
    ],
    ids=["by itself", "at a start", "never ready", "not yet", "nothing kept", "it was ready", "somebody restarts it"],
)
def test_starts_that_cant_even_count_end_with_what_is_kept(
    tmp_path: Path, times: str, job: str, before: int, stops: bool
) -> None:
    words = ("ActiveEnterTimestampMonotonic", "InactiveExitTimestampMonotonic", "NFileDescriptorStore")
    shown = " ".join(f"{word} {value}" for word, value in zip(words, times.split(), strict=True))
    decision, told = said(tmp_path, "exit-code", "1", SHOWN.format(shown, job), before)
    assert decision == ("stop" if stops else "start")
    assert ("asked: stop --no-block npd6-xdp.service" in told) is stops
