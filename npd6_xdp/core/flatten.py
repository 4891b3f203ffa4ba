# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of one entry -> prefixes of which the longest decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network

from npd6_xdp.core.config import RuleConfig


@dataclass(frozen=True, slots=True)
class Flat:
    """A line of an entry's flat table: targets in `network`, by the method of the rule or, if `left_out`, not."""

    network: IPv6Network
    rule: RuleConfig
    left_out: bool = False


def flatten(
    rules: Sequence[RuleConfig], followed: Mapping[str, tuple[IPv6Network, ...]]
) -> tuple[list[Flat], list[str]]:
    """The rules of one entry as prefixes of which the longest decides, and what couldn't be as the file has it.

    `followed` has the prefixes of the interfaces that rules follow ("interface:lan0"). A rule owns its prefix: what
    its `include` leaves out or its `exclude` takes out is ignored. Another rule with a longer prefix within it
    decides there all alone.
    """
    notes: list[str] = []
    bases: dict[IPv6Network, RuleConfig] = {}
    for rule in rules:
        for network in rule_networks(rule, followed):
            first = bases.setdefault(network, rule)
            if first is not rule:
                notes.append(f"{rule.prefix}: {network} is {first.prefix}'s, which stands first in the file")
    flat: dict[IPv6Network, Flat] = {}
    owned = set(bases)
    for network, rule in bases.items():
        flat[network] = Flat(network, rule, left_out=bool(rule.include))
        for part in _parts(network, rule, followed, notes):
            # where a longer rule decides, this one's parts must not cut into it
            if part.network == network or not _lies_within(part.network, owned, network.prefixlen + 1):
                flat[part.network] = part
    return list(flat.values()), notes


def rule_networks(rule: RuleConfig, followed: Mapping[str, tuple[IPv6Network, ...]]) -> tuple[IPv6Network, ...]:
    """What a rule's `prefix` means now."""
    return followed.get(rule.follows, ()) if rule.follows else rule.networks


def _parts(
    network: IPv6Network, rule: RuleConfig, followed: Mapping[str, tuple[IPv6Network, ...]], notes: list[str]
) -> Iterator[Flat]:
    """What `include` and `exclude` make of one prefix of a rule; with both, exclude wins."""
    chosen: list[list[IPv6Network]] = []
    for key, selections in (("include", rule.include), ("exclude", rule.exclude)):
        chosen.append([])
        for selection in selections:
            found = selection.within(network)
            if found is not None:
                chosen[-1] += found
            elif all(selection.within(each) is None for each in rule_networks(rule, followed)):
                notes.append(f"{rule.prefix}: {key} {selection.text} lies outside {network}")
    include, exclude = chosen
    excluded = set(exclude)
    for part in include:
        if not _lies_within(part, excluded, network.prefixlen):
            yield Flat(part, rule)
    for part in exclude:
        yield Flat(part, rule, left_out=True)


def _lies_within(network: IPv6Network, others: set[IPv6Network], shortest: int) -> bool:
    return any(
        IPv6Network((network.network_address, length), strict=False) in others
        for length in range(shortest, network.prefixlen + 1)
    )
