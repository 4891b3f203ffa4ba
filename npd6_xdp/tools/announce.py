# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp announce`: what is asked of the daemon, and what to say of its answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from npd6_xdp.tools.control import ask

_AT_ONCE = 64  # targets in one question, which has at most 4,096 bytes


def run(control: Path, targets: Sequence[IPv6Address], interface: str | None) -> int:
    """Ask, and say on which interfaces what is announced; the exit status. Raises MachineError."""
    said = False
    for first in range(0, max(len(targets), 1), _AT_ONCE):
        some = [str(target) for target in targets[first : first + _AT_ONCE]]
        rows = ask(control, {"verb": "announce", "targets": some, "interface": interface})["interfaces"]
        said |= any(_is_announced(row, by_name=bool(some)) for row in rows)
        for row in rows:
            if (text := _text(row, some)) and (interface or len(rows) == 1 or not text.endswith(_NOTHING)):
                print(text)
        covered = {target for row in rows for target in row["targets"]}
        where = f" on {interface}" if interface else ""
        for target in some:
            if target not in covered:
                print(f"npd6-xdp: {target}: no rule answers it{where}", file=sys.stderr)
    return 0 if said else 1


_NOTHING = "no rule answers any of them"


def _is_announced(row: Mapping[str, Any], *, by_name: bool) -> bool:
    return bool(row["at_work"] and (row["targets"] if by_name else row["remembers"]))


def _text(row: Mapping[str, Any], targets: Sequence[str]) -> str:
    name = row["interface"]
    if not row["active"]:
        return f"{name}: on standby: {row['active_with']} isn't on this machine, so nothing is announced"
    if not row["at_work"]:
        return f'{name}: datapath = "monitor", so nothing is announced'
    if targets:
        count = len(row["targets"])
        return f"{name}: {count} target{'' if count == 1 else 's'}" if count else f"{name}: {_NOTHING}"
    if not row["remembers"]:
        return f"{name}: no target is remembered without active_with; name some"
    return f"{name}: all that are remembered"
