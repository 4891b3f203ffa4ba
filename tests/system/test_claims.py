# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces that daemons have, each of which another process is told of for as long as the first one lives."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.system import claims as room
from npd6_xdp.system.claims import Claims

_OTHER = """
import sys
from pathlib import Path
from npd6_xdp.system.claims import Claims
from tests.system.test_claims import whose
claims = Claims(Path(sys.argv[1]))
print(*[whose(claims, int(each)) for each in sys.argv[2:]], flush=True)
sys.stdin.read()
claims.close()
"""
_REFUSED = re.compile(
    r"wan0: another npd6-xdp's program is there already(?:: pid (\d+))?; end that one, or leave this interface out"
)
_ROOT = Path(__file__).resolve().parents[2]


def whose(claims: Claims, ifindex: int) -> int | None:
    """Claim an interface. None: it is ours, else whose it is by what is said; 0 where that isn't said."""
    try:
        claims.take(ifindex, "wan0")
    except MachineError as error:
        return int(_REFUSED.fullmatch(str(error))[1] or 0)  # type: ignore[index]  # it is to match
    return None


@contextmanager
def other(directory: Path, *ifindexes: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that claims interfaces, and what it was told."""
    words = (sys.executable, "-c", _OTHER, str(directory), *map(str, ifindexes))
    with subprocess.Popen(words, text=True, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_what_another_process_has_isnt_ours_until_it_ends_however_it_does(tmp_path: Path) -> None:
    with closing(Claims(tmp_path)) as claims:
        with other(tmp_path, 7, 9) as (process, told):
            assert told == "None None"
            assert [whose(claims, ifindex) for ifindex in (7, 8, 9)] == [process.pid, None, process.pid]
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert [whose(claims, ifindex) for ifindex in (7, 8, 9)] == [None, None, None]
        claims.give_up(8)
        with other(tmp_path, 7, 8, 9) as (_, told):
            assert told == f"{os.getpid()} None {os.getpid()}"


@pytest.mark.parametrize("kind", ["link", "directory", "pipe", "hard link"])
def test_what_is_no_plain_file_is_left_alone_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    there, target = tmp_path / "interfaces", tmp_path / "target"
    target.write_text("")
    match kind:
        case "link":
            there.symlink_to(target)
        case "directory":
            there.mkdir()
        case "pipe":
            os.mkfifo(there)
        case _:
            there.hardlink_to(target)
    with closing(Claims(tmp_path)) as claims:
        assert whose(claims, 7) is None
        claims.give_up(7)
    assert f"{there}: can't see there which interfaces are another npd6-xdp's: " in caplog.text


def test_the_file_is_the_owners_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    with closing(Claims(tmp_path)):
        status = (tmp_path / "interfaces").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (4711, 4712, 0o600)


def test_the_last_one_takes_the_file_away_and_no_other(tmp_path: Path) -> None:
    there = tmp_path / "interfaces"
    with closing(Claims(tmp_path)) as claims:
        assert whose(claims, 7) is None
        with other(tmp_path) as (process, _):  # which has no interface, and may come to one
            claims.close()
            assert there.exists()
            process.communicate("")
        assert not there.exists()
    Claims(tmp_path).close()
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_has_taken_its_place_is_left_to_whoever_has_that(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    (tmp_path / "interfaces").unlink()
    (tmp_path / "interfaces").touch()
    claims.close()
    assert (tmp_path / "interfaces").exists()


def test_what_a_killed_one_has_left_is_taken_away_unless_one_lives(tmp_path: Path) -> None:
    room.remove(tmp_path / "nowhere")
    room.remove(tmp_path)
    with other(tmp_path, 7) as (process, _):
        room.remove(tmp_path)
        assert (tmp_path / "interfaces").exists()
        process.kill()
        process.wait()
    assert (tmp_path / "interfaces").exists()
    room.remove(tmp_path)
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "interfaces").mkdir()
    room.remove(tmp_path)
    assert (tmp_path / "interfaces").is_dir()


_FORKS = """
import os, sys
from pathlib import Path
from npd6_xdp.system.claims import Claims
claims = Claims(Path(sys.argv[1]))
claims.take(7, "wan0")
if (child := os.fork()) == 0:
    if sys.argv[2] == "ends":
        claims.close()
        os._exit(0)
    sys.stdin.read()
    os._exit(0)
if sys.argv[2] == "ends":
    os.waitpid(child, 0)
print(child, flush=True)
if sys.argv[2] == "ends":
    sys.stdin.read()
else:
    os._exit(0)
"""


@pytest.mark.parametrize("child", ["ends", "outlives it"])
def test_a_process_that_is_forked_off_has_none_and_ends_none(tmp_path: Path, child: str) -> None:
    words = (sys.executable, "-c", _FORKS, str(tmp_path), child)
    with (
        closing(Claims(tmp_path)) as claims,
        subprocess.Popen(words, text=True, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        if child != "ends":
            assert process.wait(10) == 0
        assert whose(claims, 7) == (process.pid if child == "ends" else None)
        process.stdin.close()  # type: ignore[union-attr]


def test_the_highest_index_and_another_network_namespace_are_other_bytes(tmp_path: Path) -> None:
    highest = (1 << 31) - 1
    inside = (*("unshare", "--net", sys.executable, "-c", _OTHER), str(tmp_path), "7", str(highest))
    with closing(Claims(tmp_path)) as claims, other(tmp_path, 7, highest) as (process, told):
        assert told == "None None"
        assert whose(claims, highest) == process.pid
        done = subprocess.run(inside, cwd=_ROOT, input="", capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "None None\n"


def test_of_whom_cant_be_seen_from_here_no_pid_is_said(tmp_path: Path) -> None:
    inside = ("unshare", "--pid", "--fork", sys.executable, "-c", _OTHER, str(tmp_path), "7")
    with closing(Claims(tmp_path)) as claims:
        assert whose(claims, 7) is None
        done = subprocess.run(inside, cwd=_ROOT, input="", capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_one_that_is_given_up_at_that_moment_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Claims(tmp_path)) as claims, other(tmp_path, 7) as (process, _):
        tried, lock = [], fcntl.lockf

        def too_late(*which: int) -> None:
            tried.append(which)
            try:
                lock(*which)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

        monkeypatch.setattr(fcntl, "lockf", too_late)
        assert whose(claims, 7) is None
        assert len(tried) == 2


@pytest.mark.parametrize("why", ["full", "read-only", "a file is there"])
def test_where_no_file_can_be_made_that_is_said_once_and_no_more_than_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    directory = tmp_path / "run"
    if why == "a file is there":
        directory.touch()
    else:
        directory.mkdir()
        options = "nr_inodes=1" if why == "full" else "ro"
        subprocess.run(("mount", "-t", "tmpfs", "-o", options, "npd6-claims", str(directory)), check=True)
    try:
        with closing(Claims(directory)) as claims:
            assert [whose(claims, ifindex) for ifindex in (7, 8)] == [None, None]
            claims.give_up(7)
    finally:
        if why != "a file is there":
            subprocess.run(("umount", str(directory)), check=True)
    (line,) = caplog.messages
    assert line.startswith(f"{directory}/interfaces: can't see there which interfaces are another npd6-xdp's: ")


def test_where_the_kernel_has_no_lock_that_is_said_once_for_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes memory for each, which can't be had used up without taking it from all others on the machine."""

    def refused(*_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with closing(Claims(tmp_path)) as claims, monkeypatch.context() as patched:
        patched.setattr(fcntl, "lockf", refused)
        assert [whose(claims, ifindex) for ifindex in range(1, 100)] == [None] * 99
        claims.give_up(1)
    (line,) = caplog.messages
    assert line.endswith(f"another npd6-xdp's: {os.strerror(errno.ENOLCK)}")
