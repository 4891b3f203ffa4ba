# SPDX-License-Identifier: GPL-2.0-or-later
"""Three network namespaces joined by veth, in which one kernel asks for a host behind another.

    upstream:eth0 ────── edge:wan0   edge:lan0 ────── host:eth0
      2001:db8::1    2001:db8::2       2001:db8:1::1    2001:db8:1::42

The upstream believes that 2001:db8:1::/64 is on its link, so it sends Neighbor Solicitations for the host,
which the edge's kernel leaves unanswered. Nothing outside these namespaces is touched, and nothing of them
outlives the process: not after an exception or a signal; and what SIGKILL leaves, the next topology sweeps.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Literal, Self

from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.processes import kill_all
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc
from npd6_xdp.system.bpf.others import tc_programs

Namespace = Literal["upstream", "edge", "second", "switch", "host"]
NAMESPACES: tuple[Namespace, ...] = ("upstream", "edge", "host")

LINK_PREFIX = "2001:db8::/64"
UPSTREAM_ADDRESS = "2001:db8::1"
EDGE_WAN_ADDRESS = "2001:db8::2"
HOST_PREFIX = "2001:db8:1::/64"
EDGE_LAN_ADDRESS = "2001:db8:1::1"
HOST_ADDRESS = "2001:db8:1::42"

UPSTREAM_MAC = "02:00:00:00:00:01"
EDGE_WAN_MAC = "02:00:00:00:00:02"
EDGE_LAN_MAC = "02:00:00:00:00:0a"
HOST_MAC = "02:00:00:00:00:42"

# What ip(8) is told inside each namespace, once the cables are in.
_SETUP: dict[Namespace, tuple[str, ...]] = {
    "upstream": (
        "link set lo up",
        f"link set eth0 address {UPSTREAM_MAC} up",
        f"address add {UPSTREAM_ADDRESS}/64 dev eth0 nodad",
        f"route add {HOST_PREFIX} dev eth0",
    ),
    "edge": (
        "link set lo up",
        f"link set wan0 address {EDGE_WAN_MAC} up",
        f"address add {EDGE_WAN_ADDRESS}/64 dev wan0 nodad",
        f"route add default via {UPSTREAM_ADDRESS} dev wan0",
        f"link set lan0 address {EDGE_LAN_MAC} up",
        f"address add {EDGE_LAN_ADDRESS}/64 dev lan0 nodad",
    ),
    "host": (
        "link set lo up",
        f"link set eth0 address {HOST_MAC} up",
        f"address add {HOST_ADDRESS}/64 dev eth0 nodad",
        f"route add default via {EDGE_LAN_ADDRESS} dev eth0",
    ),
}
_INTERFACES: dict[Namespace, tuple[str, ...]] = {
    "upstream": ("eth0",),
    "edge": ("wan0", "lan0"),
    "host": ("eth0",),
}

_RUN = Path("/run")
_NETNS = _RUN / "netns"
_LABEL = re.compile(r"(npd6-([0-9]+)-[0-9]+)(-upstream|-edge|-second|-switch|-host)?")
_BPF_XDP = 37  # enum bpf_attach_type
_SCOPE_LINK, _TENTATIVE = 0x20, 0x40  # IPV6_ADDR_LINKLOCAL, and IFA_F_TENTATIVE of linux/if_addr.h
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = count()
_live: set[str] = set()  # labels of this process's topologies


class Stopped(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP arrived while a topology was up; `signum` says which.

    A KeyboardInterrupt, so that whatever runs the code (pytest, for one) ends instead of going on.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signal.Signals(signum)
        super().__init__(self.signum.name)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry of a neighbour table; `mac` is None while (or because) nobody answered."""

    state: str
    mac: str | None


class Topology:
    """The three namespaces, up and addressed while the `with` block runs.

    Raises MachineError when the machine refuses to build it, and Stopped in the `with` block on a signal.
    """

    namespaces: tuple[Namespace, ...] = NAMESPACES
    setup: Mapping[Namespace, tuple[str, ...]] = _SETUP
    interfaces: Mapping[Namespace, tuple[str, ...]] = _INTERFACES

    def __init__(self) -> None:
        self.label = f"npd6-{os.getpid()}-{next(_numbers)}"
        self.directory = _RUN / self.label  # for the files of whoever uses the topology; goes with it
        self._pid = os.getpid()
        self._processes: list[subprocess.Popen[str]] = []
        self._links: list[int] = []
        self._handlers: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        sweep()
        self._catch_signals()
        atexit.register(self.close)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def name(self, namespace: Namespace) -> str:
        """The namespace's name, as `ip netns` lists it."""
        return f"{self.label}-{namespace}"

    def run(
        self,
        namespace: Namespace,
        *argv: str,
        timeout: float = 120.0,
        check: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace to its end and return it with its output, as text.

        Raises MachineError after `timeout` seconds, and if `check` is set and the command fails.
        """
        try:
            done = subprocess.run(
                self._argv(namespace, argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                env=env,
            )
        except subprocess.TimeoutExpired:
            raise MachineError(f"lab: {' '.join(argv)}: not done after {timeout:.0f} s") from None
        if check and done.returncode:
            raise MachineError(_failure(argv, done))
        return done

    def popen(
        self,
        namespace: Namespace,
        *argv: str,
        stdout: int | IO[Any] | None = subprocess.DEVNULL,
        stderr: int | IO[Any] | None = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command in a namespace and return its process; it dies with the topology at the latest."""
        process = subprocess.Popen(
            self._argv(namespace, argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=env,
        )
        self.adopt(process)
        return process

    def adopt(self, process: subprocess.Popen[str]) -> None:
        """Have a process that somebody else has started in a namespace die with the topology at the latest."""
        self._processes.append(process)

    @contextmanager
    def inside(self, namespace: Namespace) -> Iterator[None]:
        """Move the calling thread, and no other, into a namespace: sockets opened in the block are its."""
        with Path("/proc/thread-self/ns/net").open() as home, (_NETNS / self.name(namespace)).open() as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def ip(self, namespace: Namespace, *argv: str) -> list[dict[str, Any]]:
        """What `ip -json -details` says in a namespace: ip("edge", "link", "show", "dev", "wan0")."""
        words = ("ip", "-netns", self.name(namespace), "-json", "-details", *argv)
        return [entry for entry in json.loads(_command(*words) or "[]") if entry]

    def neighbour(self, namespace: Namespace, interface: str, address: str) -> Neighbour | None:
        """The neighbour table's entry for an address, or None."""
        for entry in self.ip(namespace, "-6", "neigh", "show", "to", address, "dev", interface):
            return Neighbour("|".join(entry["state"]), entry.get("lladdr"))
        return None

    def xdp_mode(self, namespace: Namespace, interface: str) -> str | None:
        """In which mode an XDP program sits on an interface: "native", "generic", or None without one."""
        (link,) = self.ip(namespace, "link", "show", "dev", interface)
        # The numbers are XDP_ATTACHED_* of linux/if_link.h.
        return {1: "native", 2: "generic"}.get(link.get("xdp", {}).get("mode", 0))

    def attach_mode(self, namespace: Namespace, interface: str) -> str | None:
        """The same, and "tc" where no XDP program sits but one at tc's ingress."""
        with self.inside(namespace):
            at_tc = tc_programs(socket.if_nametoindex(interface))
        return self.xdp_mode(namespace, interface) or ("tc" if at_tc else None)

    def sysctl(self, namespace: Namespace, key: str, value: int | str) -> None:
        """Set a net.* sysctl in a namespace: sysctl("edge", "net/ipv6/conf/all/forwarding", 1)."""
        with self.inside(namespace):
            (Path("/proc/sys") / key).write_text(str(value))

    def xdp_pass(self, namespace: Namespace, interface: str) -> None:
        """Attach a program that passes every frame, for as long as the topology is up.

        Native XDP_TX over veth delivers nothing unless the peer has a program too, and this one is enough.
        """
        _, function = _xdp_pass()
        with self.inside(namespace):
            ifindex = socket.if_nametoindex(interface)
            link = load_bcc().lib.bpf_link_create(function.fd, ifindex, _BPF_XDP, None)
        if link < 0:
            raise MachineError(f"lab: {interface} in {namespace} takes no XDP program")
        self._links.append(link)

    def xdp_pass_end(self) -> None:
        """Detach what xdp_pass() has attached."""
        while self._links:
            os.close(self._links.pop())

    def close(self) -> None:
        """Kill what still runs in the namespaces and remove them. Harmless when nothing is left to remove."""
        if os.getpid() != self._pid:  # a forked child that leaves through atexit
            return
        for signum in self._handlers:
            signal.signal(signum, signal.SIG_IGN)  # also for ip(8), which a Ctrl-C would reach too
        _remove(self.label, [self.name(namespace) for namespace in self.namespaces])
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
        self.xdp_pass_end()
        _live.discard(self.label)
        atexit.unregister(self.close)
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _argv(self, namespace: Namespace, argv: tuple[str, ...]) -> list[str]:
        if argv[0] == "ip":  # which goes there by itself, and costs half as much then
            return ["ip", "-netns", self.name(namespace), *argv[1:]]
        # `ip netns exec` also mounts the namespace's own /sys, which setns() alone would not.
        return ["ip", "netns", "exec", self.name(namespace), *argv]

    def _catch_signals(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in _SIGNALS:
            previous = signal.getsignal(signum)
            if previous is not signal.SIG_IGN:  # started by nohup: SIGHUP stays ignored
                self._handlers[signum] = previous
                signal.signal(signum, _stop)

    def _build(self) -> None:
        _live.add(self.label)
        self.directory.mkdir(mode=0o700)
        _batch(*(f"netns add {self.name(namespace)}" for namespace in self.namespaces))
        for namespace in self.namespaces:
            # Link-local addresses would be tentative for up to two seconds, which is no part of the story.
            self.sysctl(namespace, "net/ipv6/conf/default/accept_dad", 0)
        self.connect()
        for namespace, lines in self.setup.items():
            _batch(*lines, options=("-netns", self.name(namespace)))
        for namespace, interfaces in self.interfaces.items():
            for interface in interfaces:
                self._wait_for_link_local(namespace, interface)
            for conf in ("default", *interfaces):
                self.sysctl(namespace, f"net/ipv6/conf/{conf}/accept_dad", 1)

    def connect(self) -> None:
        """Put the cables in, between namespaces that have none yet."""
        self.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
        self.cable("upstream", "eth0", "edge", "wan0")
        self.cable("edge", "lan0", "host", "eth0")

    def kill_all(self, namespace: Namespace) -> None:
        """End all that runs in a namespace, by SIGKILL, as where the power fails."""
        kill_all([_NETNS / self.name(namespace)])

    def cable(self, namespace: Namespace, interface: str, peer: Namespace, peer_interface: str) -> None:
        """Put in one."""
        # From within, since Linux 6.1 refuses a name that is taken where ip(8) runs, such as eth0.
        words = ("ip", "-netns", self.name(namespace), "link", "add", interface, "type", "veth")
        _command(*words, "peer", "name", peer_interface, "netns", self.name(peer))

    def _wait_for_link_local(self, namespace: Namespace, interface: str, timeout: float = 30.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with self.inside(namespace):
                addresses = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
            for _, _, _, scope, flags, name in map(str.split, addresses):
                if name == interface and int(scope, 16) == _SCOPE_LINK and not int(flags, 16) & _TENTATIVE:
                    return
            time.sleep(0.005)
        raise MachineError(f"lab: {interface} in {namespace} got no link-local address in {timeout:.0f} s")


@cache
def _xdp_pass() -> tuple[Any, Any]:
    """The program that passes every frame, as bcc's module and function: compiled once, which takes 0.2 s."""
    return compile_program("int xdp_pass(void *ctx) { return 2; }", "xdp_pass", {})  # XDP_PASS


def sweep() -> None:
    """Remove what topologies of processes that no longer live have left behind."""
    stale: dict[str, list[str]] = {}
    for path in (*_RUN.glob("npd6-*"), *_NETNS.glob("npd6-*")):
        if (match := _LABEL.fullmatch(path.name)) and not _alive(match[1], int(match[2])):
            stale.setdefault(match[1], []).extend([path.name] if match[3] else [])
    for label, names in stale.items():
        _remove(label, names)


def _alive(label: str, pid: int) -> bool:
    # Our own pid may have been another's before; the labels tell the two apart.
    return label in _live if pid == os.getpid() else Path(f"/proc/{pid}").exists()


def _remove(label: str, names: list[str]) -> None:
    """Remove a topology's namespaces, with what runs in them, and its directory."""
    names = [name for name in names if (_NETNS / name).exists()]
    kill_all([_NETNS / name for name in names])
    if names:
        with suppress(MachineError):  # two sweeps at once: the other was faster
            _batch(*(f"netns delete {name}" for name in names), options=("-force",))
    shutil.rmtree(_RUN / label, ignore_errors=True)


def _stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped(signum)


def _setns(fd: int) -> None:
    if _libc.setns(fd, 0x40000000):  # CLONE_NEWNET; os.setns exists from Python 3.12 on
        raise OSError(ctypes.get_errno(), "setns")


def _batch(*lines: str, options: tuple[str, ...] = ()) -> None:
    """Have one ip(8) do all that these lines say; `options` stand before them."""
    _command("ip", *options, "-batch", "-", stdin="\n".join(lines))


def _command(*argv: str, stdin: str = "") -> str:
    """Run a command to its end and return its output; raises MachineError with what it said if it fails."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise MachineError(f"lab: {argv[0]}: command not found") from None
    if done.returncode:
        raise MachineError(_failure(argv, done))
    return done.stdout


def _failure(argv: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> str:
    said = " ".join((done.stderr or done.stdout).split()) or "no message"
    return f"lab: {' '.join(argv)}: exit status {done.returncode}: {said}"
