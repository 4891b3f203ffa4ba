# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor where the machine itself may be put out of order: its clock, its neighbour table, a card that hides tags, or
keeps back VLANs that it wasn't told of, who may open a ring to Python; and what it says of `attach = "tc"`, by which
kernel this is.

For a guest only: what it does to the clock and to net.ipv6.neigh is seen by all that runs on the same kernel.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.kernels.ground import Rule, interface
from tests.kernels.scene import Scene

_PORT = "doc0"
_VLAN = 200
_OF_PORTS = ("offload", "vlan_filter")
_LOOK = 600.0  # seconds for one, where the processor is emulated, and has others to serve
_MODULES = Path("/modules/order")  # which a guest of deploy/kernels.sh has
_CARDS = Path("/sys/class/net")
_DRIVER = "e1000"  # which takes tags out of the frames, unless it is told not to
_THRESHOLDS = "net.ipv6.neigh.default.gc_thresh"
_PARANOID, _SYSCTLS = Path("/proc/sys/kernel/perf_event_paranoid"), Path("/etc/sysctl.d/npd6-xdp.conf")
_BOUND = ("setpriv", "--bounding-set=-all,+bpf,+net_admin,+net_raw,+perfmon")  # to what the unit gives
_FAULTS = {
    "clock": "the clock says 1970-01-",
    "neighbour_table": "the kernel soon throws out hosts that are there",
    "offload": f"{_PORT}: ",
    "vlan_filter": f"keep back frames of VLAN {_VLAN}, since there is no such VLAN device on {_PORT}",
}
"""The checks that are to find something, and in which words."""
_WELL = ("neighbour_table", "kernel")


def _driver(card: Path) -> str:
    return (card / "device/driver").resolve().name


def _mac(card: Path) -> str:
    return (card / "address").read_text().strip()


def _keep_clock() -> None:
    """Tell the kernel that its clock is right, as one does who keeps it so (adjtimex(2): its status, and maxerror)."""
    words = (ctypes.c_uint32 * 128)(0x14)  # struct timex, which begins with `modes`; both are 0 then
    if ctypes.CDLL(None, use_errno=True).adjtimex(words) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")


class Doctored(Scene):
    kinds = ("vlan",)

    def build(self) -> str:
        if not _MODULES.exists():
            raise RuntimeError("this scene sets the clock: deploy/kernels.sh --scene doctor runs it in a guest")
        ground = self.ground
        card = next(
            (each.name for each in _CARDS.glob("*/") if _driver(each) == _DRIVER and _mac(each).endswith(":0e")), ""
        )
        if not card:
            raise RuntimeError(
                f"there is no card with the driver {_DRIVER}: deploy/kernels.sh --scene doctor puts it in"
            )
        to = ground.topology.name("edge")
        subprocess.run(("ip", "link", "set", card, "down", "netns", to, "name", _PORT), check=True, timeout=60)
        ground.ip("edge", f"link set {_PORT} up", f"link add link {_PORT} name {_PORT}.100 up type vlan id 100")
        hosts = (
            f"neigh add 2001:db8:1::7{each} lladdr 02:00:00:00:00:7{each} dev lan0 nud permanent" for each in range(4)
        )
        ground.ip("edge", *hosts)
        # Not by tc, which auto is here since 6.6, and which sees tags wherever they stand; another port is.
        rules = interface(_PORT, Rule("2001:db8:70::/64", "static"), attach="generic")
        rules += interface(_PORT, Rule("2001:db8:70:200::/64", "static"), vlan=_VLAN, attach="generic")
        return rules + interface("wan0", Rule("2001:db8:71::/64", "static"))

    def check(self) -> None:
        ground, now = self.ground, time.time()
        before = self._look()
        ground.check("before: the table is well", {before[name]["level"] for name in _WELL}, {"ok"})
        ground.check("before: nobody keeps the clock, a note", before["clock"]["level"], "note")
        ground.check("before: in its words", "nothing that keeps it right" in before["clock"]["message"])
        _keep_clock()
        self._sh(f"sysctl -w {_THRESHOLDS}1=1 {_THRESHOLDS}2=4 {_THRESHOLDS}3=1024")
        time.clock_settime(time.CLOCK_REALTIME, 86_400.0)
        found = self._look()
        time.clock_settime(time.CLOCK_REALTIME, now)  # timedatectl would, where there is a server to ask
        _keep_clock()
        for name, words in _FAULTS.items():
            ground.check(f"{name}: a warning", found[name]["level"], "warn")
            ground.check(f"{name}: in its words", words in found[name]["message"])
        ground.check("clock: its mend", found["clock"]["mend"], ["timedatectl set-ntp true"])
        self._sh(*found["neighbour_table"]["mend"])
        for name in _OF_PORTS:
            ground.topology.run("edge", "sh", "-c", "; ".join(found[name]["mend"]), check=True)
        after = self._look()
        for name in _FAULTS:
            ground.check(f"{name}: well, once it is mended", after[name]["level"], "ok")
        self._check_tc()
        self._check_rings()

    def _check_tc(self) -> None:
        """Of a file that a daemon is to be started with: it is refused by a kernel without tcx, unless it is mended."""
        ground, file = self.ground, self.ground.topology.directory / "tc.toml"
        file.write_text(interface(_PORT, Rule("2001:db8:70::/64", "static"), attach="tc"))
        nobody = file.with_suffix(".sock")
        found = self._look(file, nobody)["tc"]
        if ground.has_tcx:
            ground.check("tc: well, where there is tcx", found["level"], "ok")
            return
        ground.check("tc: it is refused without tcx", found["level"], "fail")
        words = f'{_PORT}: Linux {os.uname().release} has no links at tc (tcx), which attach = "tc" needs'
        ground.check("tc: in its words", found["message"].startswith(words))
        self._sh(*found["mend"])
        ground.check("tc: its mend writes auto", 'attach = "auto"' in file.read_text())
        after = self._look(file, nobody)
        ground.check("tc: none of it, once it is mended", "tc" in after, False)

    def _check_rings(self) -> None:
        """Of one who has no more than the unit's capabilities: above 2, Debian's kernels open no ring for that."""
        ground, before = self.ground, _PARANOID.read_text().strip()
        _PARANOID.write_text("3\n")
        ground.check("perf_events: well for root", self._look()["perf_events"]["level"], "ok")
        found = self._look(by=_BOUND)["perf_events"]
        ground.check("perf_events: it fails for the service", found["level"], "fail")
        ground.check("perf_events: in its words", "kernel.perf_event_paranoid is 3" in found["message"])
        self._sh("mkdir -p /etc/sysctl.d", *found["mend"])
        ground.check("perf_events: well, once it is mended", self._look(by=_BOUND)["perf_events"]["level"], "ok")
        ground.check("perf_events: and at each boot", _SYSCTLS.read_text(), "kernel.perf_event_paranoid = 2\n")
        _PARANOID.write_text(before)

    def _look(
        self, config: Path | None = None, control: Path | None = None, by: Sequence[str] = ()
    ) -> dict[str, dict[str, Any]]:
        """What doctor finds, by its checks' names; of offload and filter, for this scene's port. Without a word it is
        asked of the daemon and its file. `by` has somebody else run it.
        """
        daemon, topology = self.ground.daemon, self.ground.topology
        where = (str(config or daemon.config_file), "--control", str(control or daemon.control))
        words = ("doctor", "--json", "--config", *where)
        kept = {**os.environ, "CACHE_DIRECTORY": str(topology.directory)}  # so that one look compiles, and not each
        done = topology.run("edge", *by, sys.executable, "-m", "npd6_xdp", *words, env=kept, timeout=_LOOK)
        found = json.loads(done.stdout)
        return {each["check"]: each for each in found if each["check"] not in _OF_PORTS or _PORT in each["message"]}

    @staticmethod
    def _sh(*commands: str) -> None:
        for command in commands:
            subprocess.run(("sh", "-c", command), check=True, capture_output=True, timeout=120)
