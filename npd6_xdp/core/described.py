# SPDX-License-Identifier: GPL-2.0-or-later
"""What the sentences about a solicitation need to know of its entry and its rule, apart from the table these are in.

The daemon describes both by their ids to who has only those (the control socket's verb `names`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from npd6_xdp.core.config import Datapath
from npd6_xdp.core.entries import Entry
from npd6_xdp.core.macs import mac_of
from npd6_xdp.core.table import Rule
from npd6_xdp.core.verdict import Method


class EntryFacts(NamedTuple):
    """An entry: `macs` (6 bytes each) are those by which frames come to its port, and leave it.

    `is_seen`: the kernel has an interface for its frames, so that its own proxy can answer there.
    """

    label: str
    port: str
    vlan: str
    macs: frozenset[bytes]
    spoken: bool
    shared: bool
    datapath: Datapath
    standby: bool
    why_standby: str
    is_seen: bool = True

    @classmethod
    def of(cls, entry: Entry, *, is_seen: bool = True) -> EntryFacts:
        """That of the table."""
        return cls(
            entry.label,
            entry.port,
            str(entry.vlan),
            entry.macs,
            entry.spoken,
            entry.shared,
            entry.datapath,
            entry.standby,
            entry.why_standby,
            is_seen,
        )

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> EntryFacts:
        """What as_json() gives. ValueError, TypeError or KeyError for anything else."""
        macs = frozenset(mac_of(mac) for mac in said["macs"])
        rest = {key: said[key] for key in cls._fields if key not in ("macs", "datapath")}
        return cls(macs=macs, datapath=Datapath(said["datapath"]), **rest)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**self._asdict(), "macs": sorted(mac.hex(":") for mac in self.macs)}


class RuleFacts(NamedTuple):
    """A rule: `has_via` says whether there is an interface now that its `via` means."""

    prefix: str
    method: Method
    via: tuple[str, ...]
    has_via: bool = True

    @classmethod
    def of(cls, rule: Rule, *, has_via: bool = True) -> RuleFacts:
        """That of the table."""
        return cls(rule.prefix, rule.method, rule.via, has_via)

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> RuleFacts:
        """What as_json() gives. ValueError, TypeError or KeyError for anything else."""
        return cls(said["prefix"], Method(said["method"]), tuple(said["via"]), said["has_via"])

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**self._asdict(), "via": list(self.via)}
