# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys of a configuration file, by table: docs/configuration.md's. The defaults stand in core/config.py."""

from __future__ import annotations

from dataclasses import dataclass

from npd6_xdp.core import config_parsers as parsers
from npd6_xdp.core.config import Attach, DadPolicy, Datapath, NaSource, TcOrder
from npd6_xdp.core.config_parsers import PREFIX, Parser
from npd6_xdp.core.config_words import nearest, quoted
from npd6_xdp.core.verdict import Method


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array of at least one value, each as its parser has it; or what `alone` takes, if there is such. Some have
    `most` at the most.
    """

    parser: Parser
    example: str
    alone: Parser | None = None
    most: int | None = None


MOST_VIAS = 4096
"""Names of interfaces in one rule: all of them are looked at in one turn of the loop."""
_MOST_LISTENS = 64  # each is a socket, and all are made in one turn of the loop
_FOREIGN_METHODS = {"auto": ("ndppd", Method.ROUTE), "iface": ("ndppd", Method.NEIGHBOUR)}

KEYS: dict[str, dict[str, Parser | ListOf]] = {
    "daemon": {
        "control": parsers.control,
        "log_level": parsers.OneOf(("debug", "info", "warning", "error")),
        "log_format": parsers.OneOf(("text", "json")),
    },
    "metrics": {
        "listen": ListOf(parsers.listen_address, '["[::1]:9846", "192.0.2.1:9846"]', parsers.listen, _MOST_LISTENS),
        "web_config": parsers.web_config,
    },
    "limits": {
        "events_per_second": parsers.Whole(1, 10_000_000),
        "pending": parsers.Whole(1, 65_536),
        "neighbours": parsers.Whole(1, 1_000_000),
        "kernel_entries": parsers.Whole(1, 65_536),
        "kernel_entry_age": parsers.Whole(1, 1_000_000),
        "host_route_keep": parsers.Whole(0, 1_000_000),
        "announcements_per_second": parsers.Whole(1, 1_000_000),
        "remembered_targets": parsers.Whole(1, 1_000_000),
    },
    "interface": {
        "name": parsers.interface_name,
        "vlan": parsers.vlan,
        "attach": parsers.OneOf(Attach),
        "tc_order": parsers.OneOf(TcOrder),
        "datapath": parsers.OneOf(Datapath),
        "router": parsers.boolean,
        "dad": parsers.OneOf(DadPolicy),
        "na_source": parsers.OneOf(NaSource),
        "events_per_source": parsers.Whole(0, 10_000_000),
        "collect_targets": parsers.Whole(0, 1_000_000),
        "active_with": parsers.active_with,
        "link_address": parsers.link_address,
        "multicast_router": parsers.boolean,
        "new_targets_per_second": parsers.Whole(0, 1_000_000),
    },
    "interface.rule": {
        "prefix": parsers.targets,
        "method": parsers.OneOf(Method, _FOREIGN_METHODS),
        "via": ListOf(parsers.via_name, '["lan0"]', most=MOST_VIAS),
        "include": ListOf(parsers.selection, '["::10-::1f", "::1:0/112"]'),
        "exclude": ListOf(parsers.selection, '["::1"]'),
        "router": parsers.boolean,
        "dad": parsers.OneOf(DadPolicy),
        "na_source": parsers.OneOf(NaSource),
        "host_routes": parsers.boolean,
    },
}
REQUIRED = {
    "interface": {"name": 'name = "wan0"'},
    "interface.rule": {"prefix": f'prefix = "{PREFIX}"', "method": f'method = "{Method.STATIC}"'},
}
TABLES = {"": {"daemon", "metrics", "limits", "interface"}, "interface": {"rule"}}
KNOWN = {table: TABLES.get(table, set()) | set(KEYS.get(table, ())) for table in ("", *KEYS)}


def header(table: str) -> str:
    """A table's header as the file has it."""
    return f"[[{table}]]" if table.startswith("interface") else f"[{table}]"


def unknown(table: str, key: str) -> str:
    """The message for a key that isn't the table's: where it belongs, or what is like it."""
    homes = [header(other) for other in KEYS if key in KNOWN[other]]
    if homes:
        above = f", above its first [[{table.removesuffix('.rule')}.rule]]" if table.endswith(".rule") else ""
        return f"{quoted(key)} does not belong here; write it under {' or '.join(homes)}{above}"
    meant = nearest(key, sorted(KNOWN[table]))
    if meant:
        return f"unknown key {quoted(key)}; did you mean {quoted(meant)}?"
    owner, known = (header(table), KEYS[table]) if table else ("a file", map(header, sorted(TABLES[""])))
    return f"unknown key {quoted(key)}; {owner} has {', '.join(known)}"
