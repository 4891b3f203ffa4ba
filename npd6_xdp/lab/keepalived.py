# SPDX-License-Identifier: GPL-2.0-or-later
"""The real keepalived on an edge: its file, the process with pid files of its own, and what it says."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.pair import GATEWAY, Edge, Pair

Kind = Literal["own", "virtual"]

ADVERT_INT = 0.25  # seconds
PRIORITIES: Mapping[Edge, int] = {"edge": 150, "second": 100}
VIRTUAL_MAC = "00:00:5e:00:02:33"

_PATIENCE = 60.0  # seconds that a busy machine may take for a start or an end

_CONFIG = """\
global_defs {{
    vrrp_version 3
}}
vrrp_instance edges {{
{port}
    virtual_router_id 51
    native_ipv6
    priority {priority}
    advert_int {advert_int}
    state BACKUP
    virtual_ipaddress {{
{addresses}
    }}
}}
"""
_KINDS: Mapping[Kind, tuple[str, str]] = {
    "own": ("    interface lan0\n    track_interface {\n        wan0\n    }", f"        {GATEWAY}/64 dev lan0"),
    "virtual": (
        "    interface wan0\n    use_vmac vrrp51\n    vmac_xmit_base\n    track_interface {\n        lan0\n    }",
        f"        fe80::5e:233/64\n        {GATEWAY}/64 dev lan0",
    ),
}


def configuration(kind: Kind, edge: Edge) -> str:
    """The file for an edge: with MAC addresses of their own they hear each other on lan0, else on wan0."""
    port, addresses = _KINDS[kind]
    return _CONFIG.format(port=port, addresses=addresses, priority=PRIORITIES[edge], advert_int=ADVERT_INT)


class Detection(NamedTuple):
    """How long an edge takes to find that the other one is gone, in seconds (RFC 9568 §6.1)."""

    priority: int
    advert_int: float = ADVERT_INT

    @property
    def seconds(self) -> float:
        """Active_Down_Interval: three intervals and the skew, from the last advertisement."""
        return 3 * self.advert_int + (256 - self.priority) * self.advert_int / 256


class Keepalived:
    """keepalived on an edge. It ends with the topology at the latest, as all that runs there does."""

    def __init__(self, pair: Pair, edge: Edge, kind: Kind) -> None:
        self.pair = pair
        self.edge: Edge = edge
        self.file = pair.directory / f"keepalived-{edge}.conf"
        self.log_file = self.file.with_suffix(".log")
        self.file.write_text(configuration(kind, edge))
        self._process: subprocess.Popen[str] | None = None
        self._children = self.file.with_suffix(".vrrp.pid")

    def start(self) -> None:
        """Start it, and wait until it has read its file."""
        for path in (self._children, self.file.with_suffix(".pid")):
            path.unlink(missing_ok=True)
        words = ["keepalived", "--dont-fork", "--vrrp", "--log-console", "--no-syslog", "--log-detail"]
        words += ["--use-file", str(self.file), "--pid", str(self.file.with_suffix(".pid"))]
        words += ["--vrrp_pid", str(self._children)]
        with self.log_file.open("w") as log:
            self._process = self.pair.popen(self.edge, *words, stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE
        while not self._children.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MachineError(f"lab: keepalived doesn't start: {' '.join(self.log.split())[-300:]}")
            time.sleep(0.01)

    @property
    def process(self) -> subprocess.Popen[str]:
        """The one that starts the other, which speaks VRRP."""
        assert self._process is not None, "keepalived was never started"
        return self._process

    @property
    def log(self) -> str:
        """What it has said since its start."""
        with suppress(FileNotFoundError):
            return self.log_file.read_text(errors="replace")
        return ""

    def pids(self) -> list[int]:
        """Its processes: itself, and the one that speaks VRRP."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with suppress(OSError):
            return [self.process.pid, *map(int, children.read_text().split())]
        return []

    def stop(self) -> int:
        """End it in order (SIGTERM): it takes its addresses away and says so to the other edge."""
        self.process.terminate()
        return self.process.wait(_PATIENCE)
