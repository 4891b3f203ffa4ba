# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time goes: each path taken apart, and how near it is to what the machine can do (bench.sh --profile)."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.bench.machine import describe
from tests.bench.plan import Run
from tests.bench.profile import flood, growth, latency, memory, python, scan, stages
from tests.bench.profile.page import Section, write

_PARTS: dict[str, Callable[[Run], list[Section]]] = {
    "stages": stages.sections,
    "memory": memory.sections,
    "flood": flood.sections,
    "python": python.sections,
    "one at a time": latency.sections,
    "scan": scan.sections,
    "growth": growth.sections,
}


def profile(run: Run, folder: Path) -> bool:
    """Measure all, write profile.md and profile.json and print the page; False if a part couldn't be measured."""
    machine, found, whole = describe(), [], True
    for name, part in _PARTS.items():
        gc.collect()
        try:
            found += part(run)
        except KeyboardInterrupt:
            found.append(Section(name, (), [], ["interrupted"]))
            whole = False
            break
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            found.append(Section(name, (), [], [f"not measured: {reason}"]))
            whole = False
    print(write(machine, found, folder), end="")
    return whole
