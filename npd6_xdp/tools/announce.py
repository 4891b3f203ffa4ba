# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp announce`: what is asked of the daemon, and what to say of its answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.tools.control import ask

_AT_ONCE = 64  # targets in one question, which has at most 4,096 bytes


def run(control: Path, targets: Sequence[IPv6Address], interface: str | None) -> int:
    """Ask, and say on which interfaces what is announced; the exit status.

    Raises UsageError for a target with a zone, and MachineError, which says how many targets had been taken by then.
    """
    for target in targets:
        if target.scope_id is not None:
            plain = str(target).partition("%")[0]
            raise UsageError(f"{target}: a target has no zone; say {plain} --interface {target.scope_id}")
    found: dict[str, dict[str, Any]] = {}  # by interface, the targets of all questions together
    for first in range(0, max(len(targets), 1), _AT_ONCE):
        some = [str(target) for target in targets[first : first + _AT_ONCE]]
        try:
            rows = ask(control, {"verb": "announce", "targets": some, "interface": interface})["interfaces"]
        except MachineError as error:
            if not first:
                raise
            _say(found, targets, interface)
            raise MachineError(f"{error}; the first {first} of {len(targets)} targets were taken") from error
        for row in rows:
            before = found.get(row["interface"], {"targets": []})["targets"]
            found[row["interface"]] = {**row, "targets": before + row["targets"]}
    _say(found, targets, interface)
    covered = {target for row in found.values() for target in row["targets"]}
    where = f" on {interface}" if interface else ""
    for text in map(str, targets):
        if text not in covered:
            print(f"npd6-xdp: {text}: no rule answers it{where}", file=sys.stderr)
    return 0 if any(_is_announced(row, by_name=bool(targets)) for row in found.values()) else 1


_NOTHING = "no rule answers any of them"


def _say(found: Mapping[str, Mapping[str, Any]], targets: Sequence[IPv6Address], interface: str | None) -> None:
    for row in found.values():
        text = _text(row, by_name=bool(targets))
        if interface or len(found) == 1 or not text.endswith(_NOTHING):
            print(text, flush=True)


def _is_announced(row: Mapping[str, Any], *, by_name: bool) -> bool:
    return bool(row["at_work"] and (row["targets"] if by_name else row["remembered"]))


def _text(row: Mapping[str, Any], *, by_name: bool) -> str:
    name = row["interface"]
    if not row["active"]:
        return f"{name}: {row['role']}, so nothing is announced"
    if not row["at_work"]:
        return f'{name}: datapath = "monitor", so nothing is announced'
    if by_name:
        count = len(row["targets"])
        return f"{name}: {count} target{'' if count == 1 else 's'}" if count else f"{name}: {_NOTHING}"
    if not row["remembers"]:
        return f"{name}: no target is remembered without active_with or new_targets_per_second; name some"
    return f"{name}: all that are remembered" if row["remembered"] else f"{name}: nothing is remembered"
