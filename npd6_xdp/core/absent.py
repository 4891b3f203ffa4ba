# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces that the configuration has, as `name` or `via`, and this machine hasn't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from npd6_xdp.core.config import Config, is_glob, matches
from npd6_xdp.core.links import LinkFacts

_WAITING = "no such interface; waiting for it"
_WAITING_FOR_ONE = "no interface matches; waiting for one"
_MOST_NAMED = 8


def absent_names(config: Config, links: Mapping[str, LinkFacts]) -> list[str]:
    """The names of [[interface]]s for which there is no interface on this machine; globs, which match none, come last.

    An alternative name counts as absent: the caller has put names in for those (core/altnames.py).
    """
    names = [each.name for each in config.interfaces if not each.is_glob and each.name not in links]
    globs = [each.name for each in config.interfaces if each.is_glob and not any(map(each.matches, links))]
    return list(dict.fromkeys([*names, *globs]))


def absent_vias(config: Config, links: Mapping[str, LinkFacts]) -> list[str]:
    """The names and globs of `via` for which there is no interface on this machine."""
    return sorted(config.via_names - links.keys() - {glob for glob, now in via_globs(config, links).items() if now})


def via_globs(config: Config, links: Mapping[str, LinkFacts]) -> Mapping[str, Sequence[str]]:
    """The globs of `via`, each with the interfaces of this machine that it matches; {} where none are known."""
    globs = sorted(filter(is_glob, config.via_names)) if links else ()
    return {glob: sorted(name for name in links if matches(name, glob)) for glob in globs}


def absent_lines(config: Config, links: Mapping[str, LinkFacts]) -> tuple[list[str], list[str]]:
    """Two lines for the user: the interfaces that `name` has and this machine hasn't, and those that `via` has."""
    names = [f"{name}: {_WAITING_FOR_ONE if is_glob(name) else _WAITING}" for name in absent_names(config, links)]
    return names, [f"via {name}: {_WAITING}" for name in absent_vias(config, links)]


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
