# SPDX-License-Identifier: GPL-2.0-or-later
"""Alternative names of interfaces (`ip link property`): a configuration may have them for the names.

Each stands for the one interface that has it now, in `name`, in `via` and in "interface:NAME". Globs match names
only: udev gives a port several alternative ones by itself, so "en*" would catch what `ip link` shows as eth0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig, some_rules
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps, finish


def alternative_names(links: Mapping[str, LinkFacts]) -> dict[str, str]:
    """The names of interfaces by their alternative ones."""
    return {other: link.name for link in links.values() for other in link.altnames}


def with_names(config: Config, names: Mapping[str, str]) -> Config:
    """naming(), by whoever has nothing else to do."""
    return finish(naming(config, names))


def naming(config: Config, names: Mapping[str, str]) -> Steps[Config]:
    """The configuration with each alternative name replaced by the interface's name, bit by bit; the same object where
    it has none. If another entry names the same interface by its name, for the same frames, the one with the
    alternative name is left out: see duplicates().
    """
    meant = {other: name for other, name in names.items() if other in config.names}
    if not meant:
        return config
    left_out = {id(interface) for interface, _ in _duplicates(config, meant)}
    interfaces = []
    for interface in config.interfaces:
        if id(interface) not in left_out:
            interfaces.append((yield from _named(interface, meant)))
            yield
    return dataclasses.replace(config, interfaces=tuple(interfaces))


def duplicates(config: Config, names: Mapping[str, str]) -> list[str]:
    """A line for each entry whose alternative name means an interface that another entry is for as well."""
    return [
        f'{interface.label}: left out, since {interface.name} is {name}, which has an [[interface]] by its name "{by}"'
        f" for these frames already"
        for interface, by in _duplicates(config, names)
        for name in (names[interface.name],)
    ]


def _duplicates(config: Config, names: Mapping[str, str]) -> list[tuple[InterfaceConfig, str]]:
    if config.names.isdisjoint(names):
        return []  # of 20,000 entries it takes a while to find that out one by one
    exact = [interface for interface in config.interfaces if not interface.is_glob]
    first = {(interface.name, interface.vlan): interface.name for interface in exact if interface.name not in names}
    found = []
    for interface in exact:
        if interface.name in names:
            by = first.setdefault((names[interface.name], interface.vlan), interface.name)
            if by != interface.name:
                found.append((interface, by))
    return found


def _named(interface: InterfaceConfig, names: Mapping[str, str]) -> Steps[InterfaceConfig]:
    rules: list[RuleConfig] = []
    for some in some_rules(interface.rules):
        rules += [_rule_named(rule, names) for rule in some]
        yield
    return dataclasses.replace(interface, name=names.get(interface.name, interface.name), rules=tuple(rules))


def _rule_named(rule: RuleConfig, names: Mapping[str, str]) -> RuleConfig:
    if rule.follows not in names and names.keys().isdisjoint(rule.via):
        return rule
    via = tuple(dict.fromkeys(names.get(via, via) for via in rule.via))
    return rule._replace(via=via, follows=names.get(rule.follows, rule.follows))
