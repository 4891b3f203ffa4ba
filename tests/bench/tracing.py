# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that is traced, and one that can't be: what the trace costs is the difference between the two."""

from __future__ import annotations

import ctypes as ct
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from unittest.mock import patch

from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.system.bpf import compiler, load
from npd6_xdp.system.bpf.testrun import XDP_TX
from npd6_xdp.system.bpf.trace import Looking, TraceRing
from npd6_xdp.tools.trace_ring import TraceRing as Reader
from tests.bench import program
from tests.bench.program import Cost, Harness, Repeats, Vary
from tests.datapath.harness import Bench

_LOOKS = (
    ("entry->flags & ENTRY_TRACED", "0"),
    ("\ts->traced_at = 0;\n", ""),
    ("__u64 now = s->traced_at;", "__u64 now = 0;"),
    ("passed->traced_at = s->traced_at;", ""),
)
_PAUSE = 0.0005  # seconds between two looks of the reader: it takes 16,000 records in that time, at most


@contextmanager
def untraceable() -> Iterator[Bench]:
    """The real program but for all that looks whether it is traced."""
    source = load._source(compiler.BPF_DIRECTORY)
    for what, instead in _LOOKS:
        if what not in source:
            raise RuntimeError(f"the program has no {what!r} any more")
        source = source.replace(what, instead)
    with patch.object(load, "_source", lambda _: source), patch.dict(os.environ, CACHE_DIRECTORY=os.devnull):
        bench = Bench(program.one_prefix(), pages=16)
    with closing(bench):
        yield bench


@contextmanager
def traced(bench: Bench, wanted: Filter) -> Iterator[None]:
    """Somebody traces, and what comes is thrown away as fast as it comes, by another thread."""
    over = threading.Event()
    with closing(TraceRing()) as ring, closing(Reader(ring.fileno(), ring.size)) as reader:
        written = ct.c_uint64.from_buffer_copy  # of the page that the kernel writes to

        def read() -> None:
            while not over.wait(_PAUSE):
                reader._read_to.value = written(reader._theirs[:8]).value

        thread = threading.Thread(target=read)
        bench.ns_filter.look(Looking(ring.fileno(), wanted.pack(), ""), frozenset())
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            bench.ns_filter.look_away()


def cost(bench: Bench, bare: int, repeats: Repeats) -> Cost:
    """Of an answer, over the bare program."""
    with closing(Harness(Vary.FIXED, 1)) as harness:
        return harness.cost(bench.ns_filter.program.fd, bare, XDP_TX, repeats)


def difference(bench: Bench, other: Bench, repeats: Repeats) -> Cost:
    """Of an answer by one program over an answer by the other, in turns."""
    with closing(Harness(Vary.FIXED, 1)) as harness:
        return harness.between(bench.ns_filter.program.fd, other.ns_filter.program.fd, XDP_TX, repeats)
