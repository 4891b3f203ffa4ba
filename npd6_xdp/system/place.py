# SPDX-License-Identifier: GPL-2.0-or-later
"""Where this process is: the machine's name, and the network namespace's."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from npd6_xdp.core.names import shown

_NAMED = Path("/run/netns")  # ip-netns(8)


class Place(NamedTuple):
    """`namespace` is its name by `ip netns`, else its number ("net:[4026532288]"); "" where that can't be read."""

    host: str
    namespace: str


def place(process: str = "self") -> Place:
    """This process's, or another's on this machine."""
    return Place(shown(os.fsencode(os.uname().nodename)), _namespace(process))


def _namespace(process: str) -> str:
    with suppress(OSError):
        here = Path(f"/proc/{process}/ns/net").stat()
        with suppress(OSError):
            for each in sorted(_NAMED.iterdir()):
                with suppress(OSError):
                    if os.path.samestat(each.stat(), here):
                        return shown(os.fsencode(each.name))
        return f"net:[{here.st_ino}]"
    return ""
