# SPDX-License-Identifier: GPL-2.0-or-later
"""How many files this process may have open: each port takes one, and 1,024 is what most are started with."""

from __future__ import annotations

import resource
from contextlib import suppress


def raise_limit() -> None:
    """Raise the soft limit to the hard one, which is for the administrator to set (LimitNOFILE=, ulimit -Hn).

    The soft one is low for the sake of programs that use select(2), which this one doesn't.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # more than the sysctl fs.nr_open, which may have been lowered since
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
