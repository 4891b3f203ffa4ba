# SPDX-License-Identifier: GPL-2.0-or-later
"""The npd6 and ndppd that run here are found, whatever else runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from npd6_xdp.system.other_daemons import other_daemons

_NAMED = "import ctypes, sys; ctypes.CDLL(None).prctl(15, {name!r}); print(flush=True); sys.stdin.read()"  # PR_SET_NAME


@contextmanager
def process(name: bytes) -> Iterator[int]:
    """A process that calls itself so: its id."""
    words = (sys.executable, "-c", _NAMED.format(name=name))
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running.pid


def test_a_process_whose_name_is_no_text_stops_nobody() -> None:
    """Anybody may have one, and the daemon looks at all of them when it starts."""
    with process(b"\xff\xfe"), process(b"ndppd") as pid:
        assert ("ndppd", pid) in other_daemons()
