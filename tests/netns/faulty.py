# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp with a fault in it: faulty.py PLACE FILE ARGUMENT..., and PLACE raises as many times as FILE says.

PLACE is MODULE:CLASS.METHOD, with =refused behind it where the fault is the machine's and no mistake of ours, =broken
where a source of changes is. As long as FILE isn't there, or has 0, all is well. From SIGUSR2 on, its main thread hangs
while FILE.hold is there; other threads go on.
"""

from __future__ import annotations

import importlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

from npd6_xdp import cli
from npd6_xdp.core.errors import BrokenSource, MachineError

KINDS = {"": RuntimeError, "refused": MachineError, "broken": BrokenSource}


def main(place: str, file: str, *arguments: str) -> int:
    """Run the command line with the fault."""
    place, _, kind_of_fault = place.partition("=")
    module, _, name = place.partition(":")
    kind, _, method = name.partition(".")
    owner = getattr(importlib.import_module(module), kind)
    whole, left = getattr(owner, method), Path(file)

    def faulty(*positional: Any, **named: Any) -> Any:
        count = int(left.read_text() or 0) if left.exists() else 0
        if count:
            left.write_text(str(count - 1))
            raise KINDS[kind_of_fault]("a fault for the test")
        return whole(*positional, **named)

    def hang(*_: object) -> None:
        while Path(f"{file}.hold").exists():
            time.sleep(0.05)

    setattr(owner, method, faulty)
    signal.signal(signal.SIGUSR2, hang)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
