# SPDX-License-Identifier: GPL-2.0-or-later
"""The TOML to be: its interfaces, their rules, and the text, each remark a comment above what it is about."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from npd6_xdp.core.config_parsers import LINK_LOCAL, link_local, never_answered
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.tools.convert.common import Notes, quoted

_EVERYTHING = IPv6Network("::/0")


@dataclass(slots=True)
class Rule:
    """An [[interface.rule]] to be; without a method only its remarks are written."""

    line: int
    method: str = ""
    network: IPv6Network = _EVERYTHING
    via: list[str] = field(default_factory=list)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    host_routes: bool = False
    router: bool = True
    remarks: list[str] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """Its prefix as the file has it."""
        return spelled(self.network)

    def take(self, address: IPv6Address, length: int, written: str, notes: Notes) -> None:
        """Set the prefix: masked, and no method if no rule can be made for it; each is said."""
        self.network = IPv6Network((address, length), strict=False)
        if self.network.network_address != address:
            text = f"{quoted(written)} has host bits set; they don't count, it is {self.network}"
            notes.say(self.line, text, self.remarks)
        if reason := _unanswerable(self.network):
            notes.say(self.line, f"{quoted(written)}: left out: {reason}", self.remarks)
            self.method = ""
        elif self.network.supernet_of(LINK_LOCAL):
            text = f"{quoted(written)}: link-local and multicast targets in it are never answered"
            notes.say(self.line, text, self.remarks)


@dataclass(slots=True)
class Interface:
    """An [[interface]] to be."""

    line: int
    name: str
    rules: list[Rule] = field(default_factory=list)
    router: bool = True
    collect_targets: int = 0
    remarks: list[str] = field(default_factory=list)

    @property
    def converted(self) -> list[Rule]:
        """The rules that have an equal."""
        return [rule for rule in self.rules if rule.method]


def _unanswerable(network: IPv6Network) -> str:
    """Why no rule can be made for a prefix; "" if one can."""
    if never_answered(Prefix.of(network)):
        return "multicast addresses, :: and ::1 are never answered"
    if link_local(Prefix.of(network)) and network.prefixlen < 128:
        return "link-local targets are answered only where a rule names the one address"
    return ""


def spelled(network: IPv6Network) -> str:
    """A prefix as a rule has it; a /128 is an address."""
    return str(network.network_address if network.prefixlen == 128 else network)


# --- Its text ---


def document(kind: str, notes: Notes, interfaces: Iterable[Interface]) -> str:
    """The whole text: only keys that say something."""
    lost, rest = notes.top()
    lines = [
        f"# Made by `npd6-xdp convert` from {notes.source}, an {kind}.",
        "# `npd6-xdp check --config FILE` validates what stands here and prints the table that results.",
        *(["#", "# What follows of that file has no equal:", *_comments(lost)] if lost else []),
        *(
            ["#", "# What follows of it is so here in another way, or needn't be said:", *_comments(rest)]
            if rest
            else []
        ),
    ]
    for interface in interfaces:
        lines += ["", *_comments(interface.remarks)]
        if not interface.converted:
            lines += _comments([remark for rule in interface.rules for remark in rule.remarks])
            continue
        lines += ["[[interface]]", f"name = {_string(interface.name)}"]
        lines += [] if interface.router else ["router = false"]
        lines += [f"collect_targets = {interface.collect_targets}"] if interface.collect_targets else []
        for rule in interface.rules:
            lines += ["", *_comments(rule.remarks)]
            if rule.method:
                lines += _rule(rule, interface.router)
    return "\n".join(lines) + "\n"


def _rule(rule: Rule, router: bool) -> list[str]:
    arrays = {"via": rule.via, "include": rule.include, "exclude": rule.exclude}
    return [
        "[[interface.rule]]",
        f"prefix = {_string(rule.prefix)}",
        f"method = {_string(rule.method)}",
        *(f"{key} = {_array(values)}" for key, values in arrays.items() if values),
        *([f"router = {str(rule.router).lower()}"] if rule.router != router else []),
        *(["host_routes = true"] if rule.host_routes else []),
    ]


def _comments(remarks: Iterable[str]) -> list[str]:
    return [f"# {remark}" for remark in remarks]


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # for printable text a TOML string, too


def _array(values: list[str]) -> str:
    strings = [_string(value) for value in values]
    line = f"[{', '.join(strings)}]"
    return line if len(line) <= 100 else "\n".join(["[", *(f"    {string}," for string in strings), "]"])
