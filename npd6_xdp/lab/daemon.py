# SPDX-License-Identifier: GPL-2.0-or-later
"""The real daemon, as a subprocess in the edge: started, waited for, read (log and metrics), ended."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from prometheus_client.parser import text_string_to_metric_families

import npd6_xdp
from npd6_xdp.core.errors import MachineError
from npd6_xdp.lab.processes import state_of
from npd6_xdp.lab.topology import Namespace, Topology

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "npd6_xdp")

Metrics = dict[tuple[str, frozenset[tuple[str, str]]], float]

_READY = re.compile(r"\b(ready: |started, but )")
_LOGGED = 2.0  # seconds that a line of the log is waited for, at most
_numbers = count()


class StartError(MachineError):
    """The daemon ended, or never became ready, when it should have started; `log` is what it said."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


class RunningDaemon:
    """`npd6-xdp run` in a namespace of a topology, ready while the `with` block runs.

    `environment` is added to this process's own. `program` is the command before `run --config FILE`.
    Entering the block raises StartError if the daemon isn't ready within `timeout` seconds.
    """

    def __init__(
        self,
        topology: Topology,
        config: str,
        *,
        namespace: Namespace = "edge",
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
        timeout: float = 180.0,
    ) -> None:
        number = next(_numbers)
        self.topology = topology
        self.namespace: Namespace = namespace
        self.config_file = topology.directory / f"npd6-xdp-{number}.toml"
        self.log_file = topology.directory / f"npd6-xdp-{number}.log"
        # a control socket of its own, as namespaces share the file system; a configuration may name another
        self.control = topology.directory / f"npd6-xdp-{number}.sock"
        self.write(config)
        self._program = tuple(program)
        self._argv = (*program, "run", "--config", str(self.config_file))
        self._environment = {**os.environ, **_import_path(), **(environment or {})}
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        with self.log_file.open("w") as log:
            self._process = self._started(log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _started(self, log: IO[str]) -> subprocess.Popen[str]:
        return self.topology.popen(self.namespace, *self._argv, stdout=log, stderr=log, env=self._environment)

    def write(self, config: str) -> None:
        """Put another configuration into the daemon's file; it is read at the start and at each reload."""
        if "control = " not in config:
            line = f'control = "{self.control}"\n'
            with_header = config.replace("[daemon]\n", f"[daemon]\n{line}")
            config = with_header if with_header != config else f"[daemon]\n{line}{config}"
        beside = self.config_file.with_suffix(".new")
        beside.write_text(config)
        beside.replace(self.config_file)  # whole, also for a reload that reads it now

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the program in the daemon's namespace: command("status", "--json")."""
        if argv[0] in ("status", "reload", "announce", "doctor"):
            argv = (*argv, "--control", str(self.control))
        return self.topology.run(self.namespace, *self._program, *argv, env=self._environment)

    def trace(self, *argv: str) -> subprocess.Popen[str]:
        """A trace of this daemon, which is under way once this returns; communicate() has what it tells."""
        words = (*self._program, "trace", *argv, "--control", str(self.control))
        pipe = subprocess.PIPE
        trace = self.topology.popen(self.namespace, *words, stdout=pipe, stderr=pipe, env=self._environment)
        assert trace.stderr is not None, "it was asked for"
        trace.stderr.readline()
        return trace

    @staticmethod
    def told_by(trace: subprocess.Popen[str], seconds: float = 60.0) -> str:
        """All that a trace has told at its end, which it is made to come to if it doesn't by itself."""
        try:
            return trace.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            trace.kill()
            return trace.communicate()[0]

    @property
    def process(self) -> subprocess.Popen[str]:
        """The daemon's own process (no wrapper around it)."""
        assert self._process is not None, "the daemon was never started"
        return self._process

    @property
    def log(self) -> str:
        """All that the daemon has written to stderr and stdout so far.

        A thread of it writes, on a busy machine some time after what the line reports has happened. So this waits until
        the thread has nothing left to write, unless it is busy all the time.
        """
        deadline, rests = time.monotonic() + _LOGGED, 0
        while rests < 2 and time.monotonic() < deadline:  # the writer may be looked at before the one who wakes it
            rests = 0 if {"R", "D"} & set(self.thread_states()) else rests + 1
            if not rests:
                time.sleep(0.002)
        return self.log_file.read_text(errors="replace")

    def thread_states(self) -> list[str]:
        """The state of each of the daemon's threads, as /proc says it: "R" at work, "S" waiting, "T" stopped."""
        states = []
        if self._process is not None and self._process.returncode is None:
            with suppress(OSError):  # the process has ended
                for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
                    with suppress(OSError):  # it has ended
                        states.append(state_of(thread))
        return states

    def stop(self, timeout: float = 60.0) -> int:
        """End the daemon with SIGTERM, or SIGKILL after `timeout` seconds; returns its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End the daemon with SIGKILL, as a crash would; returns its exit status (-9)."""
        self.process.kill()
        return self.process.wait()

    def metrics_text(self, host: str = "::1", port: int = 9846, timeout: float = 60.0) -> str:
        """The metrics page, fetched over HTTP from within the daemon's namespace."""
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            with self.topology.inside(self.namespace):
                connection.request("GET", "/metrics")
            response = connection.getresponse()
            page = response.read().decode()
        except OSError as error:
            raise MachineError(f"lab: no metrics from [{host}]:{port}: {error}") from error
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise MachineError(f"lab: metrics from [{host}]:{port}: HTTP status {response.status}")
        return page

    def metrics(self) -> Metrics:
        """Every sample of the metrics page: {(name, frozenset(labels)): value}."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.metrics_text())
            for sample in family.samples
        }

    def solicitations(self, interface: str = "wan0") -> dict[str, int]:
        """How many solicitations met which outcome on an interface: {outcome: count}, without the zeros.

        By the control socket, at a third of what the metrics page costs, which has the same counts; by that where the
        socket doesn't have them: the configuration has given it another name, or there are too many interfaces.
        """
        self.settle()
        for each in self._overview().get("interfaces", ()):
            if each["interface"] == interface:
                return {outcome: count for outcome, count in each["solicitations"].items() if count}
        found = {}
        for (name, labels), value in self.metrics().items():
            words = dict(labels)
            if name == "npd6_solicitations_total" and words["interface"] == interface and value:
                found[words["outcome"]] = int(value)
        return found

    def settle(self) -> None:
        """Wait for a turn of the daemon's loop: what it was doing is counted then, too, which follows the answer.
        Doesn't wait where the daemon is gone, or has been given another control socket.
        """
        self._overview()

    def _overview(self) -> dict[str, Any]:
        """The brief status; {} where the control socket gives none."""
        said = b""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(60.0)
            connection.connect(str(self.control))
            connection.sendall(b'{"verb": "status", "brief": true}\n')
            while piece := connection.recv(1 << 16):
                said += piece
        try:
            return dict(json.loads(said))
        except ValueError:
            return {}

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            if (status := self.process.poll()) is not None:
                said = self.log
                last = ": ".join(["", *said.splitlines()[-1:]])
                raise StartError(f"lab: the daemon didn't start: exit status {status}{last}", said)
            if _READY.search(self.log_file.read_text(errors="replace")):
                return
            time.sleep(0.01)
        raise StartError(f"lab: the daemon was not ready within {self._timeout:.0f} s", self.log)


def _import_path() -> dict[str, str]:
    """An environment in which this very package is the one that the daemon imports, from any directory."""
    home = str(Path(npd6_xdp.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{home}{os.pathsep}{inherited}" if inherited else home}
