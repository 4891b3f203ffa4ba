# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration taken apart and put together again, so that one process can hand it to another bit by bit. A process
takes a part in within a millisecond or two, whatever the file has: it has at most 500 things.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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


class Known(NamedTuple):
    """The next rules of the interface that follows: from one to another of those that both sides had before."""

    start: int
    end: int


class Interfaces(NamedTuple):
    """The next interfaces. The rules of the first of them came before it, as Rules, except those that it has itself."""

    interfaces: tuple[InterfaceConfig, ...]


Part = Items | Rules | Known | Interfaces | Config
"""A Config is the last, without interfaces."""


def _rules_of(config: Config | None) -> list[RuleConfig]:
    """All rules of a configuration, in their order."""
    return [rule for interface in (config.interfaces if config else ()) for rule in interface.rules]


def parts(config: Config, before: Config | None = None) -> Iterator[Part]:
    """The parts of a configuration. Assembly puts them together again, with the same one `before`."""
    places = {id(rule): place for place, rule in enumerate(_rules_of(before))}
    ready: list[InterfaceConfig] = []
    left = _MOST
    for interface in config.interfaces:
        size = len(interface.rules) + 1
        if size <= _MOST:
            size = sum(map(_size, interface.rules)) + 1
        if size > left and ready:
            yield Interfaces(tuple(ready))
            ready, left = [], _MOST
        if size > _MOST:
            yield from _of_rules(interface.rules, places)
            interface = replace(interface, rules=())
            size = 1
        ready.append(interface)
        left -= size
    if ready:
        yield Interfaces(tuple(ready))
    yield replace(config, interfaces=())


def _of_rules(rules: Iterable[RuleConfig], places: Mapping[int, int]) -> Iterator[Part]:
    for run in _runs(rules, places):
        if isinstance(run, Known):
            yield run
        else:
            yield from _of_new(run)


def _runs(rules: Iterable[RuleConfig], places: Mapping[int, int]) -> Iterator[Known | list[RuleConfig]]:
    """What both sides had before, by its places, and what is new, in turns. `places` are by id()."""
    new: list[RuleConfig] = []
    start = end = -1  # of those before: none
    for rule in rules:
        place = places.get(id(rule))
        if place == end:
            end += 1
            continue
        if end > start:
            yield Known(start, end)
            start = end = -1
        if place is None:
            new.append(rule)
            continue
        if new:
            yield new
            new = []
        start, end = place, place + 1
    if end > start:
        yield Known(start, end)
    if new:
        yield new


def _of_new(rules: Iterable[RuleConfig]) -> Iterator[Part]:
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
    """Takes the parts of a configuration, in their order; `before` is what parts() was told."""

    def __init__(self, before: Config | None = None) -> None:
        self._before = before
        self._known: list[RuleConfig] | None = None
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
            case Known(start, end):
                if self._known is None:
                    self._known = _rules_of(self._before)
                self._rules += self._known[start:end]
            case Interfaces(interfaces):
                if self._rules:
                    interfaces = (replace(interfaces[0], rules=tuple(self._rules)), *interfaces[1:])
                    self._rules = []
                self._interfaces += interfaces
            case Config():
                return replace(part, interfaces=tuple(self._interfaces))
        return None
