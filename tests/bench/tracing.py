# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that is traced, and one that can't be: what the trace costs is the difference between the two."""

from __future__ import annotations

import ctypes as ct
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from npd6_xdp.core.trace_wire import Filter
from npd6_xdp.system.bpf.trace import Looking, TraceRing
from npd6_xdp.tools.trace_ring import TraceRing as Reader
from tests.bench.variants import without
from tests.datapath.harness import Bench

_LOOKS = (
    ("entry->flags & ENTRY_TRACED", "0"),
    ("\ts->traced_at = 0;\n", ""),
    ("__u64 now = s->traced_at;", "__u64 now = 0;"),
    ("passed->traced_at = s->traced_at;", ""),
)
_PAUSE = 0.0005  # seconds between two looks of the reader: it takes 16,000 records in that time, at most


def untraceable() -> AbstractContextManager[Bench]:
    """The real program but for all that looks whether it is traced."""
    return without(_LOOKS)


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
