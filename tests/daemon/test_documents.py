# SPDX-License-Identifier: GPL-2.0-or-later
"""When samples of the counters are taken, by which the page and the log know of problems."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from npd6_xdp.core.judgement import Facts
from npd6_xdp.core.samples import EVERY
from npd6_xdp.core.steps import Steps, finish
from npd6_xdp.daemon.documents import Documents
from npd6_xdp.daemon.loop import Loop


class View(SimpleNamespace):
    """Counters of nothing, which take a moment by the clock, as if another process had the processor."""

    def tally(self, *_: object) -> Steps[tuple[dict[str, int], list[Any]]]:
        yield
        time.sleep(0.05)
        return {}, []

    def counted(self, *_: object) -> Steps[Facts]:
        yield from ()
        return Facts([])


def test_on_a_busy_machine_samples_come_as_often_as_on_an_idle_one() -> None:
    """Each took as many seconds of a pause as it had waited for the processor, six hundred times."""
    rings: Any = SimpleNamespace(busy=False)
    view: Any = View()
    answering: Any = SimpleNamespace()
    loop = Loop()
    documents = Documents(loop, view, answering, rings, lambda: 0)
    began = time.monotonic()
    finish(documents._sample())
    assert documents._sample_at is not None
    assert documents._sample_at - began < 2 * EVERY
    loop.close()
