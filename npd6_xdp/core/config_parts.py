# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration in small parts, and out of them again: to be handed over bit by bit by who read it elsewhere.

A part is what a process takes in within a millisecond or two, whatever the file has: 500 things at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig

_MOST = 500
_LISTS = ("via", "include", "exclude")  # of a rule, that may be of any length


class Items(NamedTuple):
    """Those that come next of a list of the rule to come."""

    key: str
    items: tuple[Any, ...]


class Rules(NamedTuple):
    """Those that come next of the interface to come. The first one's long lists have come before, as Items."""

    rules: tuple[RuleConfig, ...]


class Interfaces(NamedTuple):
    """Those that come next. The first one's rules have come before, but for what it has itself."""

    interfaces: tuple[InterfaceConfig, ...]


Part = Items | Rules | Interfaces | Config
"""A Config is the last, without interfaces."""


def parts(config: Config) -> Iterator[Part]:
    """What Assembly makes the same configuration of."""
    ready: list[InterfaceConfig] = []
    room = _MOST
    for interface in config.interfaces:
        size = sum(map(_size, interface.rules)) + 1
        if size > room and ready:
            yield Interfaces(tuple(ready))
            ready, room = [], _MOST
        if size > _MOST:
            yield from _of_rules(interface.rules)
            interface = replace(interface, rules=())
            size = 1
        ready.append(interface)
        room -= size
    if ready:
        yield Interfaces(tuple(ready))
    yield replace(config, interfaces=())


def _of_rules(rules: tuple[RuleConfig, ...]) -> Iterator[Part]:
    ready: list[RuleConfig] = []
    room = _MOST
    for rule in rules:
        size = _size(rule)
        if size > room and ready:
            yield Rules(tuple(ready))
            ready, room = [], _MOST
        if size > _MOST:
            for key in _LISTS:
                items = getattr(rule, key)
                for at in range(0, len(items), _MOST):
                    yield Items(key, items[at : at + _MOST])
            rule = rule._replace(via=(), include=(), exclude=())
            size = len(rule.networks) + 1
        ready.append(rule)
        room -= size
    if ready:
        yield Rules(tuple(ready))


def _size(rule: RuleConfig) -> int:
    """How many things there are to take in."""
    return len(rule.networks) + len(rule.via) + len(rule.include) + len(rule.exclude) + 1


class Assembly:
    """Takes the parts of a configuration, in their order."""

    def __init__(self) -> None:
        self._items: dict[str, list[Any]] = {}
        self._rules: list[RuleConfig] = []
        self._interfaces: list[InterfaceConfig] = []

    def add(self, part: Part) -> Config | None:
        """The configuration, once this was its last part."""
        match part:
            case Items(key, items):
                self._items.setdefault(key, []).extend(items)
            case Rules(rules):
                if self._items:
                    lists: dict[str, Any] = {key: tuple(items) for key, items in self._items.items()}
                    rules = (rules[0]._replace(**lists), *rules[1:])
                    self._items = {}
                self._rules += rules
            case Interfaces(interfaces):
                if self._rules:
                    interfaces = (replace(interfaces[0], rules=tuple(self._rules)), *interfaces[1:])
                    self._rules = []
                self._interfaces += interfaces
            case Config():
                return replace(part, interfaces=tuple(self._interfaces))
        return None
