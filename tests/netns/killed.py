# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp that is killed at a place: killed.py PLACE FILE ARGUMENT..., as by SIGKILL from outside.

PLACE is MODULE:CLASS.METHOD, with < before it where it dies before that is done, and > where behind it. It dies there
for the first time that FILE is there.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from npd6_xdp import cli


def main(place: str, file: str, *arguments: str) -> int:
    """Run the command line, and die."""
    module, _, name = place[1:].partition(":")
    kind, _, method = name.partition(".")
    owner = getattr(importlib.import_module(module), kind)
    whole, armed = getattr(owner, method), Path(file)

    def deadly(*positional: Any, **named: Any) -> Any:
        if place[0] == "<" and armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        done = whole(*positional, **named)
        if armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(owner, method, deadly)
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
