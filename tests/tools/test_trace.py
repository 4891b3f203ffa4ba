# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp trace` with outputs that are closed, and beside a daemon that has much to do."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.tools import trace
from npd6_xdp.tools.trace_session import Session


def test_a_closed_standard_output_is_one_line(tmp_path: Path) -> None:
    words = f"{sys.executable} -m npd6_xdp trace --control {tmp_path}/none.sock >&-"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "npd6-xdp: standard output is closed: lead it somewhere, such as >/dev/null\n"


def test_what_is_said_beside_is_not_among_what_is_shown_where_standard_error_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    trace._say("tracing; Ctrl-C ends it")
    assert capsys.readouterr().out == ""


def test_where_others_wait_for_the_daemon_as_well_it_waits_with_them(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as others:
        listening.bind(str(path))
        listening.listen(1)
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                other = others.enter_context(socket.socket(socket.AF_UNIX))
                other.setblocking(False)
                other.connect(str(path))
                waiting += 1

        def refuse_all() -> None:
            for _ in range(waiting):
                listening.accept()[0].close()
            connection, _ = listening.accept()
            with connection:
                assert json.loads(connection.recv(4096))["verb"] == "trace"
                connection.sendall(b'{"error": "in its turn"}\n')

        later = threading.Timer(0.3, refuse_all)  # by then it waits, or has given up
        later.start()
        with pytest.raises(MachineError, match="in its turn"):
            Session(path, Filter())
        later.join()


def test_of_what_is_lost_one_line_a_second_sums_up_what_no_line_has_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    losses, said = trace._Losses(), []
    for eighth, lost in enumerate((0, 5, *[2_000] * 8, 2_010, 2_011, *[2_015] * 8, 2_015, 2_016, *[2_016] * 15)):
        now[0] = 100 + eighth / 8
        losses.tell(lost)
        said += [(now[0], int(line.split()[1].replace(",", ""))) for line in capsys.readouterr().err.splitlines()]
    assert [lost for _, lost in said] == [2_000, 15, 1], "and nothing where nothing more was lost"
    assert all(later - sooner >= 1 for (sooner, _), (later, _) in zip([(100.0, 0), *said], said, strict=False))
