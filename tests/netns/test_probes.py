# SPDX-License-Identifier: GPL-2.0-or-later
"""What is remembered of probes: whom a refusal is about, for as long as one may come, and no more."""

from __future__ import annotations

import errno
import time
import tracemalloc

from npd6_xdp.core.neighbours import Host
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.netlink.neighbours import NeighbourWatch

NOWHERE = 9999  # no interface's index


def test_forty_thousand_probes_take_no_more_memory_than_ten_thousand_and_refusals_are_told(
    topology: Topology,
) -> None:
    with topology.inside("edge"):
        watch = NeighbourWatch()
    try:
        sizes = []
        tracemalloc.start()
        for number in range(40_000):
            host = Host(NOWHERE, number.to_bytes(16))
            watch.resolve(host)
            if number % 100 == 99:
                refused = list(watch.take_refusals(time.monotonic() + 10))
                assert refused[-1] == (host, errno.ENODEV)
                assert len(refused) == 100
            if number in (10_000, 39_999):
                sizes.append(tracemalloc.get_traced_memory()[0])
        assert sizes[1] - sizes[0] < 200_000
    finally:
        tracemalloc.stop()
        watch.close()
