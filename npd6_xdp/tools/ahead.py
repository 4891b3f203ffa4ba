# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles the XDP program ahead of a start, which then finds it: the package does so before it restarts the service.

Compiling is most of what a start takes, and nothing answers meanwhile where there is no program to be handed over.
"""

from __future__ import annotations

import sys

from npd6_xdp.core.config import Limits
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.table import Table
from npd6_xdp.system.bpf.ns_filter import NsFilter


def main() -> int:
    """Load it once, by whoever is to have it, and let go of it; the exit status."""
    try:
        NsFilter(Table({}, {}, {}, {}, {}), Limits()).close()
    except MachineError as error:
        print(f"npd6-xdp: warning: {error}", file=sys.stderr)
        return 1
    print("npd6-xdp: the XDP program is compiled, for the next start to find")
    return 0


if __name__ == "__main__":
    sys.exit(main())
