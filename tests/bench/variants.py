# SPDX-License-Identifier: GPL-2.0-or-later
"""The real program without some of its lines: what these cost is the difference between the two."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from unittest.mock import patch

from npd6_xdp.core.table import Table
from npd6_xdp.system.bpf import compiler, load
from npd6_xdp.system.bpf.testrun import XDP_TX
from tests.bench import program
from tests.bench.program import Cost, Harness, Repeats, Vary
from tests.datapath.harness import Bench


@contextmanager
def without(lines: Sequence[tuple[str, str]], wanted: Table | None = None) -> Iterator[Bench]:
    """The real program, in whose text each of these is replaced by what stands beside it. Its table, or one prefix."""
    source = load._source(compiler.BPF_DIRECTORY)
    for what, instead in lines:
        if what not in source:
            raise RuntimeError(f"the program has no {what!r} any more")
        source = source.replace(what, instead)
    with patch.object(load, "_source", lambda _: source), patch.dict(os.environ, CACHE_DIRECTORY=os.devnull):
        bench = Bench(program.one_prefix() if wanted is None else wanted, pages=16)
    with closing(bench):
        yield bench


def cost(bench: Bench, bare: int, repeats: Repeats) -> Cost:
    """Of an answer, over the bare program."""
    with closing(Harness(Vary.FIXED, 1)) as harness:
        return harness.cost(bench.ns_filter.program.fd, bare, XDP_TX, repeats)


def difference(bench: Bench, other: Bench, repeats: Repeats) -> Cost:
    """Of an answer by one program over an answer by the other, in turns."""
    with closing(Harness(Vary.FIXED, 1)) as harness:
        return harness.between(bench.ns_filter.program.fd, other.ns_filter.program.fd, XDP_TX, repeats)
