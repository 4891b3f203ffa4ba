# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons by a process that has read all of Python's before, and forks for each: a start takes 0.18 s of CPU, not 0.35.

It runs what `npd6-xdp run` runs, with arguments, environment, namespace, /sys and log of its own, and with signals as
from a terminal. /proc/PID/cmdline and the memory that it shares tell the two apart: a test that looks at such things is
marked `exec`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from npd6_xdp import cli
from npd6_xdp.lab.daemon import PROGRAM, RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.compiler import load_bcc
from tests import times
from tests.roots import PROJECT

_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x00020000
_MS_REC, _MS_SLAVE, _MNT_DETACH = 0x4000, 0x80000, 2
_NETNS = Path("/run/netns")
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MOST = 1 << 17  # bytes of a request
_BEFORE = ("npd6_xdp.daemon", "npd6_xdp.tools.complaint", "npd6_xdp.tools.log_format")


class Nursery:
    """The process that forks; it ends with this process, and what it has forked goes on."""

    def __init__(self) -> None:
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "tests.netns.warm", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd=PROJECT,
            )

    def start(
        self, namespace: str, argv: Sequence[str], environment: Mapping[str, str], log: IO[str]
    ) -> subprocess.Popen[str]:
        """`npd6-xdp` with these words, in the namespace that `ip netns` knows by this name."""
        asked = {"namespace": namespace, "argv": argv, "environment": dict(environment), "directory": str(Path.cwd())}
        pid = self._ask(asked, log.fileno())["pid"]
        return Forked(self, pid, ["npd6-xdp", *argv])

    def ended(self, pid: int) -> int:
        """The exit status of one that has ended, or is about to."""
        told = self._ask({"wait": pid})
        times.of_others(told["cpu"])
        return int(told["status"])

    def _ask(self, asked: Mapping[str, Any], *descriptors: int) -> dict[str, Any]:
        with self._lock:
            socket.send_fds(self._door, [json.dumps(asked).encode()], descriptors)
            said = self._door.recv(_MOST)
        assert said, "the process that forks daemons has ended"
        return dict(json.loads(said))


class Forked(subprocess.Popen[str]):
    """One of its children, as if it were this process's."""

    def __init__(self, nursery: Nursery, pid: int, argv: list[str]) -> None:
        # Not the parent's: nothing is to be started here.
        self._child_created = False  # or the parent waits for it, at the end
        self.stdin = self.stdout = self.stderr = None
        self.args, self.pid, self.returncode = argv, pid, None
        self._nursery, self._exit, self._reaping = nursery, os.pidfd_open(pid), threading.Lock()

    def __del__(self) -> None:
        os.close(self._exit)

    def poll(self) -> int | None:
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._exit, select.POLLIN)
            if not poll.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            with self._reaping:
                if self.returncode is None:
                    self.returncode = self._nursery.ended(self.pid)
        return int(self.returncode)

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def warm(topology: Topology, config: str, **options: Any) -> RunningDaemon:
    """A daemon that is forked, or by exec where `options` or how the tests are run ask for that."""
    # what measures coverage does so from exec on
    cold = options.keys() & {"program", "environment"} or "coverage" in sys.modules
    return (RunningDaemon if cold else WarmDaemon)(topology, config, **options)


class WarmDaemon(RunningDaemon):
    """A daemon that is forked. It takes what RunningDaemon does, but for another program."""

    def __init__(self, topology: Topology, config: str, **options: Any) -> None:
        super().__init__(topology, config, **options)
        assert self._program == PROGRAM, "it has no other"

    def _started(self, log: IO[str]) -> subprocess.Popen[str]:
        words = self._argv[len(PROGRAM) :]
        process = nursery().start(self.topology.name(self.namespace), words, self._environment, log)
        self.topology.adopt(process)
        return process


@cache
def nursery() -> Nursery:
    """The one of this process; it ends when nobody can ask it any more."""
    return Nursery()


# --- the process that forks -----------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


def _must(name: str, *arguments: Any) -> None:
    if getattr(_libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


def _enter(namespace: str) -> None:
    """What `ip netns exec` does: the namespace, and its own /sys."""
    with (_NETNS / namespace).open() as there:
        _must("setns", there.fileno(), _CLONE_NEWNET)
    _must("unshare", _CLONE_NEWNS)
    _must("mount", b"", b"/", b"none", _MS_SLAVE | _MS_REC, None)
    _must("umount2", b"/sys", _MNT_DETACH)
    _must("mount", namespace.encode(), b"/sys", b"sysfs", 0, None)


def _become(asked: Mapping[str, Any], log: int) -> int:
    """In the child: a daemon, to its end; its exit status."""
    for number in _ENDS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["directory"])
    sys.argv[:] = ["npd6-xdp", *asked["argv"]]
    _enter(asked["namespace"])
    return cli.main(asked["argv"])


def _ended(pid: int) -> dict[str, Any]:
    _, status, usage = os.wait4(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}


def serve(door: socket.socket) -> int:
    """Fork for each request, until nobody can ask any more. In a child, this returns its exit status."""
    for name in _BEFORE:
        import_module(name)
    load_bcc()
    for number in _ENDS:  # they may reach it, too, and who ends in order asks it how its daemons did
        signal.signal(number, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        words, descriptors, _, _ = socket.recv_fds(door, _MOST, 1)
        if not words:
            return 0
        asked = json.loads(words)
        if "wait" in asked:
            said = _ended(asked["wait"])
        elif pid := os.fork():
            for each in descriptors:
                os.close(each)
            said = {"pid": pid}
        else:
            door.close()
            return _become(asked, *descriptors)
        door.send(json.dumps(said).encode())


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
