# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp that stops where it loads another program: held.py FILE ARGUMENT..., while FILE is there, until SIGCONT."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npd6_xdp import cli
from npd6_xdp.daemon import loading
from npd6_xdp.system.bpf.load import Loaded, load


def main(file: str, *arguments: str) -> int:
    """Run the command line. Who stops is the process beside the daemon."""

    def held(sizes: Mapping[str, int], *more: Any) -> Loaded:
        if Path(file).exists():
            signal.raise_signal(signal.SIGSTOP)
        return load(sizes, *more)

    loading.load = held  # type: ignore[attr-defined,assignment]
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
