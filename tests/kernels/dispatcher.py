# SPDX-License-Identifier: GPL-2.0-or-later
"""libxdp's dispatcher with several programs in the place of XDP: xdp-filter, and another that xdp-loader puts there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.kernels.ground import Rule, interface, until
from tests.kernels.scene import Scene
from tests.kernels.wire import ANSWER

_PORT, _OTHER, _FREE = "xd0", "xd1", "xd2"
_RULE = Rule("2001:db8:64::/64", "static")
_TARGET = "2001:db8:64::1"
_FILTER, _SECOND, _THIRD = "xdpfilt_alw_all", "xdpfilt_alw_tcp", "xdpfilt_alw_udp"
_OBJECTS = Path("/usr/lib/x86_64-linux-gnu/bpf")


class Dispatcher(Scene):
    """Their programs pass all. It takes a kernel with BTF that takes programs which extend another one."""

    kinds = ("veth",)

    def build(self) -> str:
        for port in (_PORT, _OTHER, _FREE):
            self.ground.cable(port, f"{port}-ask")
        # xdp-filter keeps its maps by name, and the dispatcher its programs: all is run in one mount namespace.
        words = ("sh", "-c", "mount -t bpf bpf /sys/fs/bpf && exec sleep 86400")
        self._keeper = self.ground.topology.popen("edge", *words)
        mounted = ("grep", "-q", " /sys/fs/bpf bpf ", "/proc/mounts")
        self.ground.check("bpffs is there", until(lambda: self._run(*mounted).returncode == 0, 30.0))
        for port in (_PORT, _OTHER):
            self._do("xdp-filter", "load", port, "--mode", "skb", "--policy", "allow")
            self._add(port, _SECOND)
        return interface(_PORT if self.ground.has_tcx else _FREE, _RULE)  # else there is no place

    def check(self) -> None:
        ground = self.ground
        ground.check("two programs sit in the dispatcher", self._inside(_PORT), [_FILTER, _SECOND])
        for attach in ("native", "generic") if ground.has_tcx else ("native", "generic", "auto"):
            self._refused(attach)
        if ground.has_tcx:
            self._answers()
        for port in (_PORT, _OTHER):
            self._do("xdp-loader", "unload", port, "--all")
        ground.check("all of them have gone", ground.program(_PORT), None)
        if ground.has_tcx:
            self._asks(answered=True)
        self._keeper.kill()

    def _answers(self) -> None:
        """By tc, whatever the dispatcher's programs pass."""
        ground = self.ground
        ground.check_auto(_PORT, "native XDP_TX is lost on veth")
        before = self._passed()
        self._asks(answered=True)
        ground.check("xdp-filter counts them, too", self._passed() > before)
        self._add(_PORT, _THIRD)
        ground.check("a third one comes to them", self._inside(_PORT), [_FILTER, _SECOND, _THIRD])
        self._asks(answered=True)
        self._do("xdp-filter", "ether", self._asker(), "--mode", "src")
        self._asks(answered=False)

    def _refused(self, attach: str) -> None:
        """The other port, where they sit as well, isn't to be had so."""
        ground = self.ground
        done, words = ground.reload(interface(_OTHER, _RULE, attach=attach))
        ground.check(f"{attach} is refused", done, False)
        said = (
            f"{_OTHER}: another XDP program is attached in generic mode: id {ground.program(_OTHER)} (xdp_dispatcher)"
        )
        ground.check(f"{attach}: it says who is there", said in words)

    def _asks(self, *, answered: bool) -> None:
        wire, mac = self.ground.wire(f"{_PORT}-ask"), self.ground.mac(_PORT)
        self.ground.check("what the upstream gets", wire.ask(_TARGET, mac, tries=3) == ANSWER, answered)

    def _asker(self) -> str:
        (found,) = self.ground.topology.ip("upstream", "link", "show", "dev", f"{_PORT}-ask")
        return str(found["address"])

    def _passed(self) -> int:
        found = re.search(r"XDP_PASS\s+(\d+) pkts", self._do("xdp-filter", "status"))
        return int(found[1]) if found else -1

    def _inside(self, port: str) -> list[str]:
        """The programs that sit in a port's dispatcher."""
        return re.findall(r"^ => +\d+ +(\w+)", self._do("xdp-loader", "status", port), re.MULTILINE)

    def _add(self, port: str, program: str) -> None:
        self._do("xdp-loader", "load", "-m", "skb", port, str(_OBJECTS / f"{program}.o"))

    def _do(self, *argv: str) -> str:
        done = self._run(*argv)
        if done.returncode:
            self.ground.fail(" ".join(argv), done.stderr.strip())
        return done.stdout

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.ground.topology.run("edge", "nsenter", "-t", str(self._keeper.pid), "-m", *argv)
