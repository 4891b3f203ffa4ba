# SPDX-License-Identifier: GPL-2.0-or-later
"""What a new configuration has that the one before hadn't, and the other way round: for whoever has asked to reload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig
from npd6_xdp.core.config_keys import KEYS
from npd6_xdp.core.steps import Steps, pieces

_KINDS = ("added", "removed", "changed")


def differences(old: Config, new: Config) -> Steps[dict[str, Any]]:
    """The keys that differ ("limits.pending"), the [[interface]]s by their labels, and how many rules, as plain values.

    An [[interface]] is changed if one of its keys or rules is. A rule is known by its prefix as the file spells it.
    """
    before = {each.label: each for each in old.interfaces}
    after = {each.label: each for each in new.interfaces}
    interfaces: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    rules: Counter[str] = Counter(dict.fromkeys(_KINDS, 0))
    for label in before | after:
        was, now = before.get(label), after.get(label)
        counted = yield from _rules(was.rules if was else (), now.rules if now else ())
        rules.update(counted)
        if was is None or now is None:
            interfaces["added" if was is None else "removed"].append(label)
        elif counted.total() or _keys_of(was) != _keys_of(now):
            interfaces["changed"].append(label)
    return {"keys": _keys(old, new), "interfaces": interfaces, "rules": dict(rules)}


def _keys(old: Config, new: Config) -> list[str]:
    found = [f"daemon.{key}" for key in KEYS["daemon"] if getattr(old, key) != getattr(new, key)]
    if old.metrics_listen != new.metrics_listen:
        found.append("metrics.listen")
    if (old.metrics_web_config, old.web) != (new.metrics_web_config, new.web):  # what it says counts, too
        found.append("metrics.web_config")
    limits = (key for key in KEYS["limits"] if getattr(old.limits, key) != getattr(new.limits, key))
    return found + [f"limits.{key}" for key in limits]


def _keys_of(interface: InterfaceConfig) -> list[Any]:
    return [getattr(interface, key) for key in KEYS["interface"]]


def _rules(old: Sequence[RuleConfig], new: Sequence[RuleConfig]) -> Steps[Counter[str]]:
    """How many of an [[interface]]'s were added, removed and changed."""
    found: Counter[str] = Counter()
    left: dict[str, RuleConfig] = {}
    for some in pieces(old):
        left.update((rule.prefix, rule) for rule in some)
        yield
    for some in pieces(new):
        for rule in some:
            was = left.pop(rule.prefix, None)
            if was is None:
                found["added"] += 1
            elif was != rule:
                found["changed"] += 1
        yield
    found["removed"] = len(left)
    return found
