# SPDX-License-Identifier: GPL-2.0-or-later
"""What a line of the log has beside its sentence: fields, for who searches by them (docs/operation.md has the list)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address
from typing import TypedDict, Unpack

from npd6_xdp.core.neighbours import Host

_LABEL = re.compile(r"(?:via )?([^\s:]+)(?::(\S+))?")
MOST_NAMES = 100
"""Of several interfaces, in the fields of a line."""
_RULE = re.compile(
    r"(?:the \w+ rule )?(interface:[^\s:]+|[0-9A-Fa-f]*:[0-9A-Fa-f:./]*(?: *- *[0-9A-Fa-f:.]+)?)(?:: | covers )"
)


class Fields(TypedDict, total=False):
    """The fields that there are; a line has those of what it says. `duration` is in seconds, `interfaces` has the first
    100 of several, and `line` and `column` are of a configuration `file`, `place` is what a mistake there is about.
    """

    interface: str
    interfaces: Sequence[str]
    ifindex: int
    vlan: str
    rule: str
    target: str
    outcome: str
    error: str
    duration: float
    file: str
    line: int
    column: int
    place: str


def fields(**known: Unpack[Fields]) -> dict[str, Fields]:
    """What a call of logging takes as `extra`."""
    return {"fields": known}


def fields_of(record: object) -> dict[str, object]:
    """Those of a line (a LogRecord), without what is empty."""
    known: Mapping[str, object] = getattr(record, "fields", {})
    return {key: value for key, value in known.items() if value not in ("", 0, None, ())}


def named(*labels: str) -> Fields:
    """The fields for who is spoken of: an interface, or an entry as its label has it ("wan0:100"); of several their
    interfaces. What is no name of an interface has none.
    """
    if len(labels) > 1:
        return Fields(interfaces=labels[:MOST_NAMES])
    found = _LABEL.fullmatch(labels[0]) if labels else None
    if found is None:
        return {}
    return Fields(interface=found[1], vlan=found[2]) if found[2] else Fields(interface=found[1])


def about_host(host: Host, name: str, error: str = "") -> Fields:
    """The fields for what is said of a host behind an interface of this name."""
    return Fields(interface=name, ifindex=host.ifindex, target=str(IPv6Address(host.address)), error=error)


def rule_of(text: str) -> str:
    """The rule that a warning is about, by its prefix as the file spells it; "" if it is about none."""
    found = _RULE.match(text)
    return found[1] if found else ""
