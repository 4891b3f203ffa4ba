# SPDX-License-Identifier: GPL-2.0-or-later
"""What all scenes of a run stand on: one topology, one daemon with the configuration of all, one list of checks.

Each scene has ports of its own on the edge, whose other ends are in the upstream, and prefixes of its own. So scenes
don't meet, and share what takes long on an emulated machine: the daemon's start, which compiles the XDP program.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from npd6_xdp.core.attached import has_tcx
from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import NAMESPACES, Namespace, Topology
from npd6_xdp.system.bpf.others import tc_programs
from npd6_xdp.tools import control
from tests.kernels.wire import Wire

_PROTOCOL = "136"
"""By which the kernel's tables know what is the daemon's."""
_START = 900.0  # seconds; half a minute on an idle machine that is emulated, a second on a real one
_DEVICES = 900.0  # seconds for ip(8) to make a hundred; over two minutes where a busy machine emulates this one


class Rule(NamedTuple):
    """An [[interface.rule]]; the rest of the line stands as TOML has it."""

    prefix: str
    method: str
    more: str = ""


def interface(name: str, *rules: Rule, **keys: str | int) -> str:
    """An [[interface]] with its rules, as TOML."""
    lines = ["[[interface]]", f'name = "{name}"']
    lines += [f"{key} = {_toml(value)}" for key, value in keys.items()]
    for rule in rules:
        lines += ["[[interface.rule]]", f'prefix = "{rule.prefix}"', f'method = "{rule.method}"', rule.more]
    return "\n".join(lines) + "\n"


def beside(name: str, *rules: Rule, **keys: str | int) -> str:
    """An [[interface]] whose attach is nothing to its scene: `auto` puts 32 ports at tc, which others look at."""
    return interface(name, *rules, **{"attach": "generic", **keys})


def _toml(value: str | int) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else f'"{value}"'


class Reload(NamedTuple):
    """What became of a reload: whether the new configuration is in use, and what was said of it."""

    done: bool
    words: str


class Ground:
    """The topology, up while the `with` block of it is; the daemon, once start() has returned."""

    def __init__(self, topology: Topology, *, must: bool = False) -> None:
        """`must`: a kind of device that this kernel lacks is a failure, not a reason to leave something out."""
        self.topology = topology
        self.failed = 0
        self.has_tcx = has_tcx(os.uname().release)
        self.scene = ""
        """What a line about a check begins with."""
        self._must = must
        self._kinds: dict[str, bool] = {}
        self._ports = 0
        self._configuration = ""
        self._before: list[str] = []
        self._daemon: RunningDaemon | None = None
        for namespace in NAMESPACES:
            # Link-local addresses that are tentative for two seconds are no part of these stories.
            topology.sysctl(namespace, "net/ipv6/conf/default/accept_dad", 0)
            topology.sysctl(namespace, "net/ipv6/conf/default/router_solicitations", 0)

    # --- devices ----------------------------------------------------------------------------------

    def ip(self, namespace: Namespace, *lines: str) -> None:
        """Have ip(8) do this in a namespace, line by line; raises MachineError if one fails."""
        words = ("ip", "-netns", self.topology.name(namespace), "-batch", "-")
        done = subprocess.run(
            words, input="\n".join(lines), capture_output=True, text=True, timeout=_DEVICES, check=False
        )
        if done.returncode:
            raise MachineError(f"ip: {'; '.join(lines)}: {done.stderr.strip()}")

    def may(self, kind: str) -> bool:
        """Whether this kernel makes devices of that kind; if not, that is said once."""
        if kind not in self._kinds:
            self._kinds[kind] = self._can(kind)
            if not self._kinds[kind] and self._must:
                self.fail(kind, "this kernel makes no device of that kind")
            elif not self._kinds[kind]:
                print(f"        left out: {kind}: this kernel makes no device of that kind", flush=True)
        return self._kinds[kind]

    def _can(self, kind: str) -> bool:
        if kind == "tun":
            return Path("/dev/net/tun").exists()
        over = "link wan0 " if kind in ("vlan", "ipvlan", "macvlan") else ""
        more = {"vlan": "id 4000", "vrf": "table 4000"}.get(kind, "")
        try:
            self.ip("edge", f"link add {over}name kind0 type {kind} {more}")
        except MachineError:
            return False
        self.ip("edge", "link delete kind0")
        return True

    def cable(self, port: str, asker: str, *, up: bool = True) -> None:
        """A veth from the edge's `port` to the upstream's `asker`, each with a MAC address of its own."""
        self._ports += 1
        edge, upstream = (f"02:00:00:00:{side}:{self._ports:02x}" for side in ("0e", "0a"))
        name = self.topology.name("upstream")
        add = f"link add {port} address {edge} type veth peer name {asker} address {upstream} netns {name}"
        self.ip("edge", add, *([f"link set {port} up"] if up else ()))
        if up:
            self.ip("upstream", f"link set {asker} up")

    def host(self, port: str, name: str, *lines: str, edge: Iterable[str] = ()) -> None:
        """A veth from the edge's `port` to `name` in the host's namespace; then `lines` there, and `edge` here."""
        add = f"link add {port} type veth peer name {name} netns {self.topology.name('host')}"
        self.ip("edge", add, f"link set {port} up", *edge)
        self.ip("host", f"link set {name} up", *lines)

    def wire(self, *askers: str) -> Wire:
        """The asker's side of a port; bonds have more than one."""
        return Wire(self.topology, *askers)

    def link(self, name: str) -> dict[str, Any]:
        """What `ip -json -details link` says of an interface of the edge's."""
        (found,) = self.topology.ip("edge", "link", "show", "dev", name)
        return found

    def mac(self, name: str) -> bytes:
        """The MAC address of an interface of the edge's, now."""
        return bytes.fromhex(self.link(name)["address"].replace(":", ""))

    def program(self, name: str) -> int | None:
        """The kernel's number of the XDP program on an interface of the edge's."""
        number: int | None = self.link(name).get("xdp", {}).get("prog", {}).get("id")
        return number

    def programs(self, name: str) -> list[int]:
        """The same of all there, at its tc ingress, too."""
        xdp = self.program(name)
        with self.topology.inside("edge"):
            return [*([] if xdp is None else [xdp]), *tc_programs(self.link(name)["ifindex"])]

    def traces(self) -> list[str]:
        """All that is in the edge's kernel at the moment and wasn't before the daemon's start, a line each."""
        ours = [
            f"route {route['dst']} dev {route.get('dev')}"
            for route in self.topology.ip("edge", "-6", "route", "show", "table", "all", "proto", _PROTOCOL)
        ]
        ours += [f"proxy {entry['dst']}" for entry in self.topology.ip("edge", "-6", "neigh", "show", "proxy")]
        for link in self.topology.ip("edge", "link", "show"):
            if link.get("xdp", {}).get("prog"):
                ours.append(f"program on {link['ifname']}")
            if "ifindex" in link and self._at_tc(link["ifindex"]):
                ours.append(f"program at tc of {link['ifname']}")
            if link.get("allmulti"):
                ours.append(f"allmulti on {link['ifname']}")
        return [line for line in ours if line not in self._before]

    def _at_tc(self, ifindex: int) -> bool:
        with self.topology.inside("edge"):
            return bool(tc_programs(ifindex))

    # --- the daemon -------------------------------------------------------------------------------

    def start(self, configuration: str) -> None:
        """Start the daemon; raises StartError if it doesn't get ready."""
        self._configuration = configuration
        self._before = self.traces()
        self._daemon = RunningDaemon(self.topology, configuration, timeout=_START)
        self._daemon.__enter__()

    @property
    def daemon(self) -> RunningDaemon:
        assert self._daemon is not None, "the daemon was never started"
        return self._daemon

    def status(self) -> dict[str, Any]:
        """What `npd6-xdp status --json` says."""
        return control.ask(self.daemon.control, {"verb": "status"})

    def check_auto(self, port: str, why: str) -> None:
        """Write down whether `attach = "auto"` is by tc on a port, or generic on a kernel without tcx, and says why."""
        row = next(row for row in self.status()["interfaces"] if row["port"] == port)
        self.check(
            f"{port}: what auto is, where it can't be native", row["attach"], "tc" if self.has_tcx else "generic"
        )
        reasons = [why] if self.has_tcx else [why, "has no links at tc (tcx)"]
        for reason in reasons:
            self.check(f"{port}: {reason}", reason in row["attach_reason"])

    def reload(self, more: str = "") -> Reload:
        """Have the daemon take the configuration of all scenes, and `more` behind it."""
        self.daemon.write(self._configuration + more)
        before = len(self.daemon.log)
        try:
            found = control.ask(self.daemon.control, {"verb": "reload"})
        except MachineError as error:
            return Reload(False, str(error))
        return Reload(True, "\n".join([*found["warnings"], self.daemon.log[before:]]))

    def metric(self, name: str, **labels: str) -> dict[str, float]:
        """The samples of a metric with these labels among others: {its labels as the page has them: value}.

        The page is read line by line, as parsing all of it takes a second on an emulated machine.
        """
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = {}
        for line in self.daemon.metrics_text(timeout=60.0).splitlines():
            series, _, value = line.rpartition(" ")
            if series.startswith(f"{name}{{") and all(label in series for label in wanted):
                found[series] = float(value)
        return found

    def outcomes(self, label: str) -> dict[str, int]:
        """What became of the solicitations on an interface ("wan0", "wan0:100"), without the zeros and `own`."""
        found = {
            series.partition('outcome="')[2].partition('"')[0]: int(value)
            for series, value in self.metric("npd6_solicitations_total", interface=label).items()
        }
        return {outcome: count for outcome, count in found.items() if count and outcome != "own"}

    def answered(self, label: str) -> int:
        """How many solicitations on an interface were answered at once, by whatever path."""
        found = self.outcomes(label)
        return found.get("answered_xdp", 0) + found.get("answered_python", 0)

    def is_up(self, label: str) -> bool:
        """What npd6_interface_up says."""
        return list(self.metric("npd6_interface_up", interface=label).values()) == [1.0]

    # --- judging ----------------------------------------------------------------------------------

    def check(self, what: str, found: object, wanted: object = True) -> None:
        """Write down, at once, whether something is as it is wanted, and what it is if not."""
        if found == wanted:
            print(f"ok      {self.scene}: {what}", flush=True)
        else:
            self.fail(what, f"{found}, not {wanted}")

    def check_soon(self, what: str, read: Callable[[], object], wanted: object, seconds: float = 30.0) -> None:
        """check() what may take a moment to come true, where a machine is emulated: it is read until then."""
        until(lambda: read() == wanted, seconds)
        self.check(what, read(), wanted)

    def fail(self, what: str, why: object) -> None:
        """Write down that something went wrong."""
        self.failed += 1
        print(f"FAILED  {self.scene}: {what}: {why}", flush=True)


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition; whether it came true in time. A machine that doesn't answer meanwhile is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(MachineError):
            if condition():
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.2)
