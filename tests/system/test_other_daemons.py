# SPDX-License-Identifier: GPL-2.0-or-later
"""The npd6 and ndppd that run here are found, whatever else runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from npd6_xdp.system.other_daemons import other_daemons
from tests.netns.wire import until

_NAMED = "import ctypes, sys; ctypes.CDLL(None).prctl(15, {name!r}); print(flush=True); sys.stdin.read()"  # PR_SET_NAME


@contextmanager
def python(name: bytes) -> Iterator[int]:
    """A Python that calls itself so: its id."""
    words = (sys.executable, "-c", _NAMED.format(name=name))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running.pid


@contextmanager
def program(path: Path) -> Iterator[int]:
    """A program of that name, which is no Python: its id."""
    shutil.copy("/bin/cat", path)
    with subprocess.Popen([path], stdin=subprocess.PIPE) as running:
        yield running.pid


def test_a_process_whose_name_is_no_text_stops_nobody(tmp_path: Path) -> None:
    """Anybody may have one, and the daemon looks at all of them when it starts."""
    with python(b"\xff\xfe"), program(tmp_path / "ndppd") as pid:
        assert until(lambda: ("ndppd", pid) in other_daemons())


def test_npd6_xdp_by_the_name_of_ndppd_is_not_another(tmp_path: Path) -> None:
    with python(b"ndppd") as ours, program(tmp_path / "ndppd") as pid:
        assert until(lambda: ("ndppd", pid) in other_daemons())
        assert ("ndppd", ours) not in other_daemons()
