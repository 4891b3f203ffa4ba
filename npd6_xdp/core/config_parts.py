# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration taken apart and put together again, so that one process can hand it to another bit by bit. A process
takes a part in within a millisecond or two, whatever the file has: it has at most 500 things.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig

_MOST = 500
_LISTS = ("via", "include", "exclude")  # of a rule, that may be of any length


class Items(NamedTuple):
    """The next items of a list of the rule that follows."""

    key: str
    items: tuple[Any, ...]


class Rules(NamedTuple):
    """The next rules of the interface that follows. The long lists of the first of them came before it, as Items."""

    rules: tuple[RuleConfig, ...]


class Interfaces(NamedTuple):
    """The next interfaces. The rules of the first of them came before it, as Rules, except those that it has itself."""

    interfaces: tuple[InterfaceConfig, ...]


Part = Items | Rules | Interfaces | Config
"""A Config is the last, without interfaces."""


def parts(config: Config) -> Iterator[Part]:
    """The parts of a configuration. Assembly puts them together again."""
    ready: list[InterfaceConfig] = []
    left = _MOST
    for interface in config.interfaces:
        size = sum(map(_size, interface.rules)) + 1
        if size > left and ready:
            yield Interfaces(tuple(ready))
            ready, left = [], _MOST
        if size > _MOST:
            yield from _of_rules(interface.rules)
            interface = replace(interface, rules=())
            size = 1
        ready.append(interface)
        left -= size
    if ready:
        yield Interfaces(tuple(ready))
    yield replace(config, interfaces=())


def _of_rules(rules: tuple[RuleConfig, ...]) -> Iterator[Part]:
    ready: list[RuleConfig] = []
    left = _MOST
    for rule in rules:
        size = _size(rule)
        if size > left and ready:
            yield Rules(tuple(ready))
            ready, left = [], _MOST
        if size > _MOST:
            for key in _LISTS:
                items = getattr(rule, key)
                for at in range(0, len(items), _MOST):
                    yield Items(key, items[at : at + _MOST])
            rule = rule._replace(via=(), include=(), exclude=())
            size = len(rule.networks) + 1
        ready.append(rule)
        left -= size
    if ready:
        yield Rules(tuple(ready))


def _size(rule: RuleConfig) -> int:
    """How many things a rule counts for."""
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
