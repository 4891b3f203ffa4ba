# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp by ndppd's command line, on the edge: with a /run/npd6-xdp of its own, since the control socket is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from npd6_xdp.lab.processes import state_of
from npd6_xdp.lab.topology import Topology
from tests.netns.service import ROOT
from tests.netns.wire import until

SHAPES = Path(__file__).with_name("ndppd")
_OWN_RUN = 'mkdir -p /run/npd6-xdp && mount -t tmpfs tmpfs /run/npd6-xdp && exec "$@"'


class Ndppd:
    """`ndppd` in the edge, a link to a script as pip installs npd6-xdp-ndppd; what it starts ends with the block."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.config = topology.directory / "ndppd.conf"
        self.pidfile = topology.directory / "ndppd.pid"
        self.log_file = topology.directory / "ndppd.log"
        script = topology.directory / "npd6-xdp-ndppd"
        script.write_text(f"#!{sys.executable}\nimport sys\nfrom npd6_xdp.ndppd import main\nsys.exit(main())\n")
        script.chmod(0o755)
        self.program = topology.directory / "ndppd"
        self.program.symlink_to(script)
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(OSError, ValueError):
            os.kill(self.pid, signal.SIGKILL)
        self._stack.close()

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start it; the process."""
        words = ("unshare", "--mount", "sh", "-c", _OWN_RUN, "sh", str(self.program), *argv)
        log = self._stack.enter_context(self.log_file.open("a"))
        return self.topology.popen("edge", *words, stdout=log, stderr=log, env=self._environment)

    def up(self, *argv: str) -> subprocess.Popen[str]:
        """Start it in the foreground, and wait until it answers."""
        process = self.start(*argv, "-p", str(self.pidfile))
        assert until(lambda: self.pidfile.exists() or process.poll() is not None), self.log
        assert process.poll() is None, self.log
        return process

    @property
    def pid(self) -> int:
        """What the pidfile says."""
        return int(self.pidfile.read_text())

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return self.log_file.read_text()

    def says(self, line: str, times: int = 1) -> bool:
        """Whether it says something so many times, or has."""
        return until(lambda: self.log.count(line) == times)

    def status(self) -> dict[str, Any]:
        """What `status --json` says, of its own control socket."""
        words = (sys.executable, "-m", "npd6_xdp", "status", "--json")
        entered = ("nsenter", f"--target={self.pid}", "--mount", "--net", f"--wdns={ROOT}")
        done = subprocess.run((*entered, *words), capture_output=True, text=True, check=True, env=self._environment)
        return dict(json.loads(done.stdout))


def ended(pid: int) -> bool:
    """Whether a process has ended that is nobody's child here."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        try:
            if state_of(Path(f"/proc/{pid}")) == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False
