# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces that daemons have, each of which another process is told of for as long as the first one lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from npd6_xdp.system.claims import Claims

_OTHER = """
import sys
from pathlib import Path
from npd6_xdp.system.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(*[claims.take(int(each)) for each in sys.argv[2:]], flush=True)
sys.stdin.read()
"""


@contextmanager
def other(directory: Path, *ifindexes: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that claims interfaces, and what it was told."""
    words = (sys.executable, "-c", _OTHER, str(directory), *map(str, ifindexes))
    with subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_what_another_process_has_isnt_ours_until_it_ends_however_it_does(tmp_path: Path) -> None:
    with closing(Claims(tmp_path)) as claims:
        with other(tmp_path, 7, 9) as (process, told):
            assert told == "None None"
            assert [claims.take(ifindex) for ifindex in (7, 8, 9)] == [process.pid, None, process.pid]
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert [claims.take(ifindex) for ifindex in (7, 8, 9)] == [None, None, None]
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
        assert claims.take(7) is None
        claims.give_up(7)
    assert f"{there}: can't see there which interfaces are another npd6-xdp's: " in caplog.text


def test_the_file_is_the_owners_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    Claims(tmp_path).close()
    status = (tmp_path / "interfaces").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (4711, 4712, 0o600)
