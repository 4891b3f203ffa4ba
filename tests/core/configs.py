# SPDX-License-Identifier: GPL-2.0-or-later
"""Valid configuration files with the lines that a test adds to them, and the mistakes of a file."""

from __future__ import annotations

from pathlib import Path

from npd6_xdp.core.config import Config, InterfaceConfig, RuleConfig
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_keys import KEYS
from npd6_xdp.core.config_parsers import Whole
from npd6_xdp.core.errors import ConfigError, Mistake
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.verdict import Method

REFERENCE = (Path(__file__).parents[2] / "deploy" / "npd6-xdp.toml").read_text()
RULE = '[[interface.rule]]\nprefix = "2001:db8:1::/64"\nmethod = "static"\n'
MINIMAL = f'[[interface]]\nname = "wan0"\n{RULE}'


def plain(prefix: str, method: Method = Method.STATIC, network: str = "") -> RuleConfig:
    """A rule that says no more than it has to; `network` if `prefix` is no strict spelling of it."""
    return RuleConfig(prefix, (Prefix.of(network or prefix),), method)


MINIMAL_RULE = plain("2001:db8:1::/64")


def daemon(lines: str) -> str:
    """A valid file with `lines` added to [daemon]."""
    return f"[daemon]\n{lines}\n{MINIMAL}"


def limits(lines: str) -> str:
    """The same for [limits]."""
    return f"[limits]\n{lines}\n{MINIMAL}"


def listen(value: str) -> str:
    """The same for metrics.listen."""
    return f"[metrics]\nlisten = {value}\n{MINIMAL}"


def web(value: str) -> str:
    """The same for metrics.web_config."""
    return f"[metrics]\nweb_config = {value}\n{MINIMAL}"


def interface(lines: str, name: str = '"wan0"') -> str:
    """The same for [[interface]]."""
    return f"[[interface]]\nname = {name}\n{lines}\n{RULE}"


def rule(lines: str = "", prefix: str = '"2001:db8:1::/64"', method: str = '"static"') -> str:
    """The same for [[interface.rule]]."""
    return f'[[interface]]\nname = "wan0"\n[[interface.rule]]\nprefix = {prefix}\nmethod = {method}\n{lines}\n'


def via(names: str) -> str:
    """The same for a rule's via."""
    return rule(f"via = {names}", method='"neighbour"')


def mistakes(text: str) -> list[Mistake]:
    """What is wrong with a file; [] if nothing is."""
    try:
        parse(text, "npd6-xdp.toml")
    except ConfigError as raised:
        error = raised
    else:
        return []
    assert error.mistakes
    assert str(error).splitlines() == [mistake.told("npd6-xdp.toml") for mistake in error.mistakes]
    return list(error.mistakes)


def its_rule(text: str) -> RuleConfig:
    """The one rule of a file."""
    (only_rule,) = only(parse(text, "")).rules
    return only_rule


def only(config: Config) -> InterfaceConfig:
    """The one interface of a configuration."""
    (entry,) = config.interfaces
    return entry


HERE, ITS_RULE = "interface[0]", "interface[0].rule[0]"
TABLES = {table.rpartition(".")[2]: {*keys} for table, keys in KEYS.items()}
"""The keys that a file may have, by table: "rule" is [[interface.rule]]."""
TABLES["interface"].add("rule")
BOUNDS = tuple((key, parser.low, parser.high) for key, parser in KEYS["limits"].items() if isinstance(parser, Whole))
"""The keys of [limits], each with the least and the most that it may be."""
