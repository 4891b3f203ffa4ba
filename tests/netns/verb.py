# SPDX-License-Identifier: GPL-2.0-or-later
"""What `reload`, `status` and `announce` say of a daemon, which they ask by its control socket alone."""

from __future__ import annotations

import subprocess

from npd6_xdp.lab.daemon import RunningDaemon
from tests.spoken import spoken


def verb(running: RunningDaemon, *argv: str) -> subprocess.CompletedProcess[str]:
    """As RunningDaemon.command(), without a process: verb(running, "status", "--json")."""
    return spoken(*argv, "--control", str(running.control))
