# SPDX-License-Identifier: GPL-2.0-or-later
"""What syslog is sent of the log, by a socket in the place of /dev/log."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from npd6_xdp.tools.syslog import Syslog


def test_each_line_is_a_message_with_its_priority(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    syslog = Syslog(logging.Formatter("npd6-xdp: %(message)s"), path)
    assert not syslog.send(syslog.line("npd6-xdp: nobody is there")), "so it is to be written elsewhere"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        heard.settimeout(10)
        for level, facility in ((logging.ERROR, 27), (logging.WARNING, 28), (logging.INFO, 30), (logging.DEBUG, 31)):
            record = logging.makeLogRecord({"msg": "one\ntwo \udcff", "levelno": level})
            assert syslog.send(syslog.entry(record))
            head = f"<{facility}>npd6-xdp[{os.getpid()}]: "
            assert [heard.recv(9999).decode() for _ in range(2)] == [f"{head}one", f"{head}two \\udcff"]
        assert syslog.send(syslog.line("npd6-xdp: it ends"))
        assert heard.recv(9999).decode() == f"<27>npd6-xdp[{os.getpid()}]: it ends"
        assert syslog.send(syslog.line("x" * 100_000))
        assert len(heard.recv(99_999)) < 9000
