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
_QUOTED = 4  # what stands between quotes, and behind them, in two lines


class PlainRules:
    """Rules that have one prefix and a method that takes no more keys, as nearly all have of a file with thousands:
    those of the file as it was before, and new ones.
    """

    def __init__(self, before: Config | None) -> None:
        self._before = {
            rule.prefix: rule
            for interface in (before.interfaces if before else ())
            for rule in interface.rules
            if rule[_MORE:] == _NO_MORE and len(rule.networks) == 1
        }

    def of_lines(self, lines: str) -> RuleConfig | None:
        """That of the two lines of a table, written as nearly all are: no prefix has a character that would have to be
        escaped. None: they aren't, or something may be wrong.
        """
        first, *quoted = lines.split('"')
        if first != "prefix = " or len(quoted) != _QUOTED or quoted[1] != "\nmethod = " or quoted[3]:
            return None
        return self.of(quoted[0], quoted[2])

    def of(self, prefix: str, method: str) -> RuleConfig | None:
        """That of the values of a table's two keys. None: something may be wrong."""
        known = self._before.get(prefix)
        if known is not None and known.method == method:
            return known
        network = parsers.plain_target(prefix)
        return None if network is None or method not in _PLAIN else RuleConfig(prefix, (network,), _PLAIN[method])
