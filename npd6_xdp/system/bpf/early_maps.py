# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps that are made while the compiler still works on the program.

Those of very many rules' counters take the kernel a while: 0.15 s for 200,000, each of which it allocates by itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from npd6_xdp.core import layout
from npd6_xdp.system.bpf.compiled import Map, create_map
from npd6_xdp.system.bpf.compiler import load_bcc

_PERCPU_ARRAY = 6  # enum bpf_map_type
_MADE = {"rule_counters": (_PERCPU_ARRAY, "RULE_COUNTERS_MAX")}
"""Names, kinds, and the definitions that say how large they are."""


class EarlyMaps:
    """Maps of these sizes, as Python knows them. Whoever loads the program takes those that are as its text has them;
    close() lets go of the others.

    One that can't be made is none: who loads the program tries it again, and says why that can't be.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        """Make them. Raises MachineError if there is no bcc."""
        lib = load_bcc().lib
        self._made: dict[Map, int] = {}
        for name, (kind, sized_by) in _MADE.items():
            key, value = layout.MAPS[name]
            wanted = Map(name, kind, key.size, value.size, sizes[sized_by], 0, sized_by)
            if (fd := create_map(lib, wanted)) >= 0:
                self._made[wanted] = fd

    def take(self, wanted: Map) -> int:
        """The descriptor of such a map, which is the caller's from now on; -1: there is none."""
        return self._made.pop(wanted, -1)

    def close(self) -> None:
        """Let go of what nobody took."""
        while self._made:
            os.close(self._made.popitem()[1])
