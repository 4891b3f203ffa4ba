# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that are measured: npd6-xdp in each of its modes, its peers, and the kernel, each on the edge."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import EDGE_WAN_ADDRESS, HOST_PREFIX
from tests.bench.ground import TARGETS, Ground, for_address, questions
from tests.bench.machine import PEERS
from tests.netns.wire import Wire, configuration, until

_KERNEL_TARGET = "2001:db8:1::42"
LIMITS = "[limits]\nevents_per_second = 10000000\n\n"
"""Out of the way of what is measured here; row 9 measures what limits do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A subject at work: its process (None: the kernel), and the daemon if it is npd6-xdp."""

    process: subprocess.Popen[str] | None = None
    daemon: RunningDaemon | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """`start` is a context in which it answers the questions; one of ours marks its answers in a known way."""

    name: str
    questions: tuple[bytes, ...]
    start: Callable[[Ground], Iterator[Running]]
    ours: bool = False

    @contextmanager
    def on(self, ground: Ground) -> Iterator[Running]:
        """At work, and seen to answer."""
        with contextmanager(self.start)(ground) as running:
            if self.answers:
                _see_it_answer(ground, self.questions[0], running)
            yield running
            _see_it_live(running)

    @property
    def answers(self) -> bool:
        """Whether it answers at all."""
        return "monitor" not in self.name


def npd6_xdp(name: str, config: str) -> Subject:
    """The daemon, by a configuration that answers for the questions."""

    def start(ground: Ground) -> Iterator[Running]:
        with RunningDaemon(ground.topology, config) as daemon:
            yield Running(daemon.process, daemon)

    return Subject(name, tuple(questions(TARGETS)), start, ours=True)


def npd6_xdp_config(datapath: str, attach: str) -> str:
    """What is measured everywhere but in row 9: no limit is in the way, and all else is as by default."""
    return LIMITS + configuration(datapath=f'"{datapath}"', attach=f'"{attach}"', events_per_source="0")


def _npd6_xdp(name: str, datapath: str, attach: str) -> Subject:
    return npd6_xdp(name, npd6_xdp_config(datapath, attach))


def _peer(name: str, program: Path, config: str, *options: str) -> Subject:
    def start(ground: Ground) -> Iterator[Running]:
        if not program.exists():
            raise RuntimeError(f"{program} is missing: run deploy/setup.sh --bench")
        path = ground.topology.directory / f"{name}.conf"
        log = ground.topology.directory / f"{name}.log"
        path.write_text(config)
        words = [word.replace("LOG", str(log)) for word in options]
        with log.open("w") as output:
            process = ground.topology.popen(
                "edge", str(program), "-c", str(path), *words, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield Running(process)
        finally:
            process.terminate()
            try:
                process.wait(2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    return Subject(name, tuple(questions(TARGETS)), start)


def _kernel_proxy(ground: Ground) -> Iterator[Running]:
    """One entry, with no delay before its answers."""
    topology = ground.topology
    topology.sysctl("edge", "net/ipv6/conf/wan0/proxy_ndp", 1)
    topology.sysctl("edge", "net/ipv6/neigh/wan0/proxy_delay", 0)
    topology.run("edge", "ip", "-6", "neigh", "add", "proxy", _KERNEL_TARGET, "dev", "wan0", check=True)
    yield Running()


def _kernel_own(_: Ground) -> Iterator[Running]:
    """It answers for the address of its own interface by itself."""
    yield Running()


HYBRID = _npd6_xdp("npd6-xdp hybrid, native", "hybrid", "native")
HYBRID_GENERIC = _npd6_xdp("npd6-xdp hybrid, generic", "hybrid", "generic")
PYTHON = _npd6_xdp("npd6-xdp python", "python", "native")
MONITOR = _npd6_xdp("npd6-xdp monitor", "monitor", "native")
NDPPD = _peer(
    "ndppd",
    PEERS / "usr/sbin/ndppd",
    f"proxy wan0 {{\n  router yes\n  rule {HOST_PREFIX} {{\n    static\n  }}\n}}\n",
)
NPD6 = _peer(
    "npd6",
    PEERS / "usr/bin/npd6",
    "prefix=2001:0db8:0001:0000:\ninterface=wan0\nralogging=off\nlisttype=none\nlistlogging=off\n"
    "collectTargets=0\nlinkOption=false\nignoreLocal=true\nrouterNA=true\nmaxHops=255\npollErrorLimit=20\n",
    "-f",
    "-l",
    "LOG",
)
KERNEL_PROXY = Subject("kernel proxy, one address", (for_address(_KERNEL_TARGET),), _kernel_proxy)
KERNEL_OWN = Subject("kernel, its own address", (for_address(EDGE_WAN_ADDRESS),), _kernel_own)


def _see_it_live(running: Running) -> None:
    """What a dead process answered is no figure."""
    if running.process is not None and running.process.poll() is not None:
        raise RuntimeError(f"{running.process.args!r} ended with status {running.process.returncode}")


def _see_it_answer(ground: Ground, frame: bytes, running: Running) -> None:
    """Ask until the first answer, which also leaves all caches warm."""
    with Wire(ground.topology) as wire:
        wire.deafen()

        def answered() -> bool:
            _see_it_live(running)
            before = ground.counter.counts().answers
            wire.send(frame)
            time.sleep(0.02)
            return ground.counter.counts().answers > before

        if not until(answered, 10.0):
            raise RuntimeError("the subject doesn't answer")
