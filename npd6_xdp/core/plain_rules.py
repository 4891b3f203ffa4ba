# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules of one prefix and a method that takes no more keys: made at once of what a file says, or known from before."""

from __future__ import annotations

from npd6_xdp.core import config_parsers as parsers
from npd6_xdp.core.config import Config, RuleConfig
from npd6_xdp.core.verdict import Method

_PLAIN = {str(method): method for method in Method if method is not Method.NEIGHBOUR}
"""Methods that need no other key."""
_MORE = RuleConfig._fields.index("follows")  # from there on are the keys that a rule may have beside those it must
_NO_MORE = tuple(RuleConfig._field_defaults[key] for key in RuleConfig._fields[_MORE:])


class PlainRules:
    """Rules that have one prefix and a method that takes no more keys, as nearly all have of a file with thousands:
    those of the file as it was before, and new ones.
    """

    def __init__(self, before: Config | None) -> None:
        self._before = {
            _lines(rule.prefix, rule.method): rule
            for interface in (before.interfaces if before else ())
            for rule in interface.rules
            if rule[_MORE:] == _NO_MORE and len(rule.networks) == 1
        }

    def of_lines(self, lines: str) -> RuleConfig | None:
        """That of two lines as _lines() has them; None where there may be more in them, or where something may be
        wrong.
        """
        if (known := self._before.get(lines)) is not None:
            return known
        first, *quoted = lines.split('"')
        if first != _FIRST or len(quoted) != _QUOTED or quoted[1] != _SECOND or quoted[3]:
            return None
        return _new(quoted[0], quoted[2])

    def of(self, prefix: str, method: str) -> RuleConfig | None:
        """That of these values of two keys; None where something may be wrong."""
        known = self._before.get(_lines(prefix, method)) if self._before else None
        return known or _new(prefix, method)


_FIRST, _SECOND = "prefix = ", "\nmethod = "
_QUOTED = 4  # what stands between quotes, and behind them, in two lines


def _lines(prefix: str, method: str) -> str:
    """What a file says below the header of a rule with these two keys, if it is written as usual: neither has a
    character that would have to be escaped.
    """
    return f'{_FIRST}"{prefix}"{_SECOND}"{method}"'


def _new(prefix: str, method: str) -> RuleConfig | None:
    network = parsers.plain_target(prefix)
    return None if network is None or method not in _PLAIN else RuleConfig(prefix, (network,), _PLAIN[method])
