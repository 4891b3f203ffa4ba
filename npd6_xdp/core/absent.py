# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces that the configuration has, as `name` or `via`, and this machine hasn't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from npd6_xdp.core.config import Config, is_glob, matches
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.steps import Steps, finish, in_order, pieces

_WAITING = "no such interface; waiting for it"
_WAITING_FOR_ONE = "no interface matches; waiting for one"
_MOST_NAMED = 8


def absent_names(config: Config, links: Mapping[str, LinkFacts]) -> list[str]:
    """The names of [[interface]]s for which there is no interface on this machine; globs, which match none, come last.

    An alternative name counts as absent: the caller has put names in for those (core/altnames.py).
    """
    return finish(finding_absent_names(config, links))


def finding_absent_names(config: Config, links: Mapping[str, LinkFacts]) -> Steps[list[str]]:
    """The same, bit by bit."""
    names: dict[str, None] = {}
    globs: dict[str, None] = {}
    for some in pieces(config.interfaces):
        for each in some:
            if each.is_glob:
                if not any(map(each.matches, links)):
                    globs[each.name] = None
                yield
            elif each.name not in links:
                names[each.name] = None
        yield
    return [*names, *globs]


def absent_vias(config: Config, links: Mapping[str, LinkFacts]) -> list[str]:
    """The names and globs of `via` for which there is no interface on this machine."""
    return finish(finding_absent_vias(config, links))


def finding_absent_vias(config: Config, links: Mapping[str, LinkFacts]) -> Steps[list[str]]:
    """The same, bit by bit."""
    globs = yield from finding_via_globs(config, links)
    missing: list[str] = []
    for some in pieces(config.via_names):
        missing += [name for name in some if name not in links and not globs.get(name)]
        yield
    return (yield from in_order(missing))


def via_globs(config: Config, links: Mapping[str, LinkFacts]) -> Mapping[str, Sequence[str]]:
    """The globs of `via`, each with the interfaces of this machine that it matches; {} where none are known."""
    return finish(finding_via_globs(config, links))


def finding_via_globs(config: Config, links: Mapping[str, LinkFacts]) -> Steps[Mapping[str, Sequence[str]]]:
    """The same, bit by bit."""
    globs: list[str] = []
    for some in pieces(config.via_names if links else ()):
        globs += filter(is_glob, some)
        yield
    found: dict[str, Sequence[str]] = {}
    for glob in (yield from in_order(globs)):
        found[glob] = sorted(name for name in links if matches(name, glob))
        yield
    return found


def finding_absent_lines(config: Config, links: Mapping[str, LinkFacts]) -> Steps[tuple[list[str], list[str]]]:
    """Lines for the user, bit by bit: of the interfaces that `name` has and this machine hasn't, and that `via` has."""
    names: list[str] = []
    for some in pieces((yield from finding_absent_names(config, links))):
        names += [f"{name}: {_WAITING_FOR_ONE if is_glob(name) else _WAITING}" for name in some]
        yield
    vias: list[str] = []
    for some in pieces((yield from finding_absent_vias(config, links))):
        vias += [f"via {name}: {_WAITING}" for name in some]
        yield
    return names, vias


def absent(config: Config, links: Mapping[str, LinkFacts]) -> list[str]:
    """The names and globs of both, each once."""
    return sorted({*absent_names(config, links), *absent_vias(config, links)})


def absent_remark(config: Config, links: Mapping[str, LinkFacts]) -> str:
    """The same in one line, for a file that may have been written for another machine; "" where all are here."""
    if not (found := absent(config, links)):
        return ""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    them = "it" if len(found) == 1 else "them"
    return f"not on this machine: {', '.join(found[:_MOST_NAMED])}{more}; npd6-xdp run waits for {them}"
