# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that the machine serves before all others, so that its load is no matter for a bound that they hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served_first() -> Iterator[None]:
    """While the block runs, this thread and all that it starts have the processor before ordinary processes (SCHED_RR).

    Where the machine doesn't let root have that, all is as ever; a Sleeper that is started in it sees which.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
