# SPDX-License-Identifier: GPL-2.0-or-later
"""What each configuration key does, for docs/configuration.md and npd6-xdp.toml(5).

Names, values, bounds and defaults are the code's; what stands here is what code can't tell. Written anew by
python -m docs.keys, which changes what is between the marks of docs/configuration.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from docs.markdown import table
from npd6_xdp.core import config_parsers as parsers
from npd6_xdp.core.config import Config, Datapath, InterfaceConfig, Limits, RuleConfig
from npd6_xdp.core.config_keys import KEYS, REQUIRED, header
from npd6_xdp.core.verdict import Method

PAGE = Path(__file__).with_name("configuration.md")


class Key(NamedTuple):
    """What one key does, in Markdown. `values` and `default` are for where the code has no words for them.

    `beyond` is what becomes of a solicitation that a limit is in the way of.
    """

    does: str
    values: str = ""
    default: str = ""
    beyond: str = ""


_LIKE_INTERFACE = "the interface's"
_FOR_THIS_RULE = "as for the interface, for this rule"
_ARRAY = "array of addresses, prefixes, ranges"

SAID: Mapping[str, Mapping[str, Key]] = {
    "daemon": {
        "control": Key(
            "the socket behind `status`, `reload` and `announce`; its directory is made",
            "absolute path, at most 107 bytes",
        ),
        "log_level": Key("what is logged: this, and all that is more severe"),
        "log_format": Key("a line to read, or an object a line"),
    },
    "metrics": {
        "listen": Key(
            'where Prometheus scrapes, and the [status page](operation.md#the-status-page) is; `""` is off,'
            ' `"[::]:9846"` all addresses',
            '`"ADDRESS:PORT"`, IPv6 in brackets, no names, or an array of up to 64 such',
        ),
        "web_config": Key(
            "a file that has TLS and passwords for them, as Prometheus' exporters take it: see"
            ' [TLS and passwords](security.md#tls-and-passwords); `""` is none',
            'absolute path, or `""`',
        ),
    },
    "limits": {
        "events_per_second": Key("solicitations per second up to Python, of all ports", beyond="`rate_limited`"),
        "pending": Key(
            "`neighbour`: pending targets (the kernel resolves them) at once; no interface has more than it leaves"
            " free, nor has one asker",
            beyond="unknown targets are `rate_limited`",
        ),
        "neighbours": Key(
            "`neighbour`: hosts that are there, of those that rules cover",
            beyond="further hosts aren't resolved: `rate_limited`",
        ),
        "kernel_entries": Key("`kernel`: proxy entries of ours", beyond="Python answers: `answered_python`"),
        "kernel_entry_age": Key(
            "`kernel`: seconds unasked until an entry goes; looked at every 2 s, or in half this if that is sooner"
        ),
        "host_route_keep": Key(
            "`neighbour`: seconds that a host's route (`host_routes`) outlives the host"
            " ([more](operation.md#method-neighbour-closer)); 0 is not at all",
            beyond="where `neighbours` has no space for it, the route that has been kept for longest goes",
        ),
        "announcements_per_second": Key(
            "unsolicited advertisements, when an entry becomes active and by `npd6-xdp announce`",
            beyond="the others wait for their turn",
        ),
        "remembered_targets": Key(
            "targets that were answered lately, where `new_targets_per_second` asks, and those that are announced where"
            " `active_with` does, under `neighbour` of each of three kinds; the one that wasn't asked for longest goes"
            " first",
            beyond="forgotten ones are new again, and aren't announced",
        ),
    },
    "interface": {
        "name": Key(
            "the port that the upstream asks on; it may come and go",
            "an interface's name or alternative name, or a glob (`*`, `?`, `[0-9]`, `[!0-9]`)",
        ),
        "vlan": Key(
            "which frames of the port: see [below](#which-entry-matches-a-frame)",
            '`"untagged"`, `"any"`, `100`, `"100.7"`',
        ),
        "attach": Key(
            "where the program sits: as XDP in the driver, at tc's ingress"
            " ([beside others](coexistence.md), Linux 6.6), or as XDP behind the driver; `auto` is native where that"
            " [can be and is right](coexistence.md#what-auto-becomes), else tc, else generic"
        ),
        "tc_order": Key("at tc: where it stands among the interface's other tc programs, when it is attached"),
        "datapath": Key("who answers: see [Datapaths](#datapaths)"),
        "router": Key("the R flag of the advertisement"),
        "dad": Key("what a probe of Duplicate Address Detection gets, for a target that is there"),
        "na_source": Key("the advertisement's source address: the target, or one of the interface's own"),
        "events_per_source": Key(
            "the same as `events_per_second`, of one source MAC address on one port and VLAN; 0 is no limit",
            beyond="`rate_limited`",
        ),
        "collect_targets": Key("how many recent targets `status` shows, for each port; 0 is off"),
        "active_with": Key(
            "the address that this machine has to hold, on any interface, for the entry to answer:"
            ' see [A pair of edges](failover.md); `""` is always',
            'an IPv4 or IPv6 address, `"fe80::1%lan0"`, or `""`',
        ),
        "link_address": Key(
            "the MAC address to advertise and to send from, VRRP's virtual one, say: see"
            ' [A virtual MAC address](failover.md#a-virtual-mac-address); `""` is the port\'s',
            'a MAC address, or `""`',
        ),
        "multicast_router": Key(
            "announce a multicast router, so that"
            " [switches with MLD snooping](operation.md#switches-with-mld-snooping) send all groups here"
        ),
        "new_targets_per_second": Key(
            "how many targets that weren't answered lately are answered per second under `static`, `route` and"
            " `kernel`, on one port and VLAN ([more](#the-upstreams-cache)); 0 is no limit",
            beyond="`rate_limited`",
        ),
    },
    "interface.rule": {
        "prefix": Key("the targets", 'a prefix, an address, a range `"A-B"`, or `"interface:NAME"`'),
        "method": Key("when one of them is there: see [Methods](#methods)"),
        "via": Key(
            'behind which interfaces (`["lan0", "br-*"]`); `neighbour` needs it, `route` may have it, others can\'t',
            "array of up to 4,096 names and globs",
            "none",
        ),
        "include": Key("only these of the prefix", _ARRAY, "all"),
        "exclude": Key("all but these", _ARRAY, "none"),
        "router": Key(_FOR_THIS_RULE, default=_LIKE_INTERFACE),
        "dad": Key(_FOR_THIS_RULE, default=_LIKE_INTERFACE),
        "na_source": Key(_FOR_THIS_RULE, default=_LIKE_INTERFACE),
        "host_routes": Key("`neighbour` only: a /128 route for each host that is there"),
    },
}


class Way(NamedTuple):
    """A method: when a target is there, who answers under datapath `hybrid`, and what the kernel has to have."""

    there: str
    answers: str
    needs: str


METHODS: Mapping[Method, Way] = {
    Method.STATIC: Way("always", "XDP", "nothing"),
    Method.ROUTE: Way(
        "the kernel would send a packet for it on, by another interface (one of `via` if given), or deliver it itself",
        "XDP",
        "forwarding on, where the frame comes in",
    ),
    Method.NEIGHBOUR: Way(
        "the neighbour table has it behind a `via` interface",
        "XDP; Python the first time, once the kernel has resolved it",
        "a neighbour table with [space](operation.md#the-neighbour-table)",
    ),
    Method.KERNEL: Way(
        "always",
        "Python the first time, then the kernel",
        "forwarding on; for tagged frames a VLAN device",
    ),
    Method.IGNORE: Way("never", "nobody", "nothing"),
}

DATAPATHS: Mapping[Datapath, str] = {
    Datapath.HYBRID: "XDP answers the plain solicitations, Python [the others](operation.md#outcomes)",
    Datapath.PYTHON: "Python answers all, with the same bytes; slower. For drivers whose XDP_TX doesn't work, and to"
    " compare",
    Datapath.MONITOR: "nobody answers: what would have been answered, resolved or left to the kernel's proxy is"
    " `monitored`. All goes on to the kernel, nothing is sent, resolved or added",
}


# --- What the code knows ---


def keys(of: str) -> list[tuple[str, Key]]:
    """The keys of a table, in the code's order. KeyError if one isn't described."""
    if without := KEYS[of].keys() - SAID[of].keys():
        raise KeyError(f"docs/keys.py says nothing of [{of}] {', '.join(sorted(without))}: add it to SAID")
    return [(name, SAID[of][name]) for name in KEYS[of]]


def values(of: str, name: str) -> str:
    """What may be written for a key, in Markdown."""
    match KEYS[of][name]:
        case parsers.OneOf(choices=choices):
            return ", ".join(f'`"{choice}"`' for choice in choices)
        case parsers.Whole(low, high):
            return f"{low} to {high:,}"
        case parsers.boolean:
            return "`true`, `false`"
        case _:
            return SAID[of][name].values


def default(of: str, name: str) -> str:
    """What holds where a key isn't written, in Markdown."""
    if name in REQUIRED.get(of, {}):
        return "required"
    if (of, name) == ("interface", "events_per_source"):
        plain, python = (InterfaceConfig("", (), datapath=each).source_limit for each in Datapath if each != "monitor")
        return f'{plain}; {python} under `"python"`'
    return SAID[of][name].default or _spelled(_defaults(of)[name])


def _defaults(of: str) -> Mapping[str, object]:
    match of:
        case "interface.rule":
            return RuleConfig._field_defaults
        case "metrics":
            ((address, port),) = Config(()).metrics_listen
            return {"listen": f"[{address}]:{port}", "web_config": Config(()).metrics_web_config}
        case _:
            kind = {"daemon": Config, "limits": Limits, "interface": InterfaceConfig}[of]
            return {field.name: field.default for field in dataclasses.fields(kind)}


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return str(value) if isinstance(value, int) else f'`"{value}"`'


# --- Tables of docs/configuration.md ---


def _table(of: str) -> str:
    rows = ((f"`{name}`", values(of, name), default(of, name), key.does) for name, key in keys(of))
    return table((f"`{header(of)}`", "type", "default", "does"), *rows)


def _limits() -> str:
    rows = []
    first, *others = (("limits", name) for name in KEYS["limits"])
    source, new_targets = (("interface", name) for name in ("events_per_source", "new_targets_per_second"))
    for of, name in (first, source, *others, new_targets):
        key = SAID[of][name]
        rows.append((f"`{header(of)}` `{name}`", values(of, name), default(of, name), key.does, key.beyond))
    return table(("key", "from, to", "default", "bounds", "beyond it"), *rows)


def parts() -> dict[str, str]:
    """What docs/configuration.md has between its marks, by the mark's name."""
    return {
        "keys": "\n\n".join(_table(of) for of in KEYS if of != "limits"),
        "methods": table(
            ("method", "a target is there if", "answers (`hybrid`)", "needs from the kernel"),
            *((f"`{method}`", *METHODS[method]) for method in Method),
        ),
        "datapaths": table(("`datapath`", "does"), *((f"`{each}`", DATAPATHS[each]) for each in Datapath)),
        "limits": _limits(),
    }


def page(text: str) -> str:
    """The page with its generated parts as the code has them now. ValueError if a mark is missing."""
    for name, part in parts().items():
        before, begin, rest = text.partition(f"<!-- {name}: written by docs/keys.py -->\n")
        _, end, after = rest.partition(f"\n<!-- end of {name} -->")
        if not begin or not end:
            raise ValueError(f"{PAGE}: no marks of {name}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
