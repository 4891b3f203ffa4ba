# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp trace` beside a daemon that has much to do."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.tools.trace_session import Session


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
