# SPDX-License-Identifier: GPL-2.0-or-later
"""A process of its own in a namespace, which does the same job as often as it is told to."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from npd6_xdp.lab.topology import Namespace, Topology

Order = TypeVar("Order")
Report = TypeVar("Report")

_PR_SET_PDEATHSIG = 1
_PATIENCE = 60.0  # seconds, beyond what the job is told to take


class Worker(Generic[Order, Report]):
    """Works while the `with` block runs.

    `prepare` is called in the new process, inside the namespace; it returns the job. The process ends with this
    one, however this one ends, and with the topology. `cpu` pins it.
    """

    def __init__(
        self,
        topology: Topology,
        prepare: Callable[[], Callable[[Order], Report]],
        namespace: Namespace = "upstream",
        cpu: int | None = None,
    ) -> None:
        self._topology = topology
        self._prepare = prepare
        self._namespace: Namespace = namespace
        self._cpu = cpu

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=self._run, args=(theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.finish()  # it is prepared
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it works while the block runs"
        return self._process.pid

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def start(self, order: Order) -> None:
        """Let it do the job; finish() waits for that."""
        self._connection.send(order)

    def finish(self) -> Report:
        """What it reports of the job that it was started on. RuntimeError if it failed."""
        try:
            if not self._connection.poll(_PATIENCE):
                raise RuntimeError("a worker of the benchmark doesn't come to an end")
            report, failure = self._connection.recv()
        except EOFError:
            raise RuntimeError("a worker of the benchmark has died") from None
        if failure:
            raise RuntimeError(f"a worker of the benchmark failed: {failure}")
        return report  # type: ignore[no-any-return]

    def do(self, order: Order) -> Report:
        """Start and finish."""
        self.start(order)
        return self.finish()

    def _run(self, connection: Connection, parent: int) -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the parent's to handle
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        if self._cpu is not None:
            os.sched_setaffinity(0, {self._cpu})
        gc.freeze()
        gc.disable()
        try:
            with self._topology.inside(self._namespace):
                job = self._prepare()
                report: Any = None
                while True:
                    connection.send((report, ""))
                    report = job(connection.recv())
        except EOFError:
            pass
        except BaseException as error:
            traceback.print_exc()
            connection.send((None, f"{type(error).__name__}: {error}"))
