# SPDX-License-Identifier: GPL-2.0-or-later
"""What `status` and the status page say: a Status or an Overview as plain values, and those of a Status as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from heapq import nlargest
from typing import Any

from npd6_xdp.core.snapshot import HostSnapshot, Overview, RuleSnapshot, Snapshot, Status
from npd6_xdp.core.verdict import Outcome

_MOST_LINES = 20
"""Lines of a list in the text; the JSON has all."""

MOST_SHOWN = 500
"""Interfaces, and rules, in an overview: it is made and sent every second."""


def status_json(status: Status) -> dict[str, Any]:
    """All of it, as plain values: counts, seconds since the epoch, addresses as text."""
    return {
        **_general(status),
        "configuration": status.file,
        "interfaces": _interfaces(status),
        "rules": _rules(status.snapshot, status.snapshot.rules),
        "neighbours": _places(status.hosts),
        "pending": [str(target) for target in status.pending],
        "pending_room": status.room and {"targets": status.room[0], "limit": status.room[1]},
        "host_routes": _places(status.host_routes),
        "kernel_proxy_entries": _places(status.proxies),
        "vias": {glob: list(names) for glob, names in status.vias.items()},
        "refused": dict(status.refused),
        "targets": [
            {
                "interface": target.label,
                "target": str(target.target),
                "first": target.first,
                "last": target.last,
                "count": target.count,
            }
            for target in status.targets
        ],
    }


def overview_json(overview: Overview) -> dict[str, Any]:
    """The same, with numbers where status_json() has lists of addresses, and of bounded length.

    At most MOST_SHOWN interfaces (the first) and rules (those with the most solicitations) are in it, in the order of
    the file; `left_out` says how many more there are. `totals` are sums over all interfaces.
    """
    now = overview.snapshot
    interfaces, rules = _interfaces(overview), _busiest(now.rules)
    return {
        **_general(overview),
        "totals": {
            key: _sum(interface[key] for interface in interfaces)
            for key in ("solicitations", "invalid", "advertisements")
        },
        "interfaces": interfaces[:MOST_SHOWN],
        "rules": _rules(now, rules),
        "left_out": {"interfaces": max(0, len(interfaces) - MOST_SHOWN), "rules": len(now.rules) - len(rules)},
        "neighbours": dict(now.neighbours),
        "pending": overview.pending,
        "host_routes": overview.host_routes,
        "kernel_proxy_entries": dict(now.proxies),
        "refused": dict(overview.refused),
    }


def _general(status: Status | Overview) -> dict[str, Any]:
    now = status.snapshot
    return {
        "time": now.time,
        "build": dict(now.build),
        "pid": status.pid,
        "started": status.started,
        "last_reload": now.last_reload,
        "reload_failures": now.reload_failures,
        "reload_error": status.reload_error,
        "warnings": list(status.warnings),
    }


def _interfaces(status: Status | Overview) -> list[dict[str, Any]]:
    return [
        {
            "interface": interface.label,
            "port": interface.port,
            "attach": interface.attach,
            "datapath": interface.datapath,
            "up": interface.up,
            "solicitations": {str(outcome): interface.outcomes.get(outcome, 0) for outcome in Outcome},
            "invalid": {str(reason): count for reason, count in interface.reasons.items()},
            "advertisements": dict(interface.advertisements),
            "lost": interface.lost,
            "xdp_tx_errors": status.tx_errors.get(interface.port),
        }
        for interface in status.snapshot.interfaces
    ]


def _rules(snapshot: Snapshot, rules: Iterable[RuleSnapshot]) -> list[dict[str, Any]]:
    return [
        {
            "interface": rule.label,
            "rule": rule.prefix,
            "method": rule.method,
            "solicitations": {str(outcome): count for outcome, count in snapshot.rule_outcomes(rule).items()},
        }
        for rule in rules
    ]


def _busiest(rules: Sequence[RuleSnapshot]) -> Sequence[RuleSnapshot]:
    if len(rules) <= MOST_SHOWN:
        return rules
    asked = [sum(rule.outcomes.values()) for rule in rules]
    chosen = nlargest(MOST_SHOWN, range(len(rules)), key=asked.__getitem__)
    return [rules[number] for number in sorted(chosen)]


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            found[name] = found.get(name, 0) + count
    return found


def _places(hosts: Iterable[HostSnapshot]) -> list[dict[str, str]]:
    return [
        {"interface": host.interface, "address": str(host.address)} | ({"state": host.state} if host.state else {})
        for host in hosts
    ]


def status_text(status: Mapping[str, Any]) -> str:
    """What status_json() gives, to read."""
    build = status["build"]
    lines = [
        f"npd6-xdp {build['version']}, pid {status['pid']}, up since {_time(status['started'])};"
        f" bcc {build['bcc']}, Linux {build['kernel']}",
        f"configuration: {status['configuration']}, in use since {_time(status['last_reload'])};"
        f" reloads that failed: {status['reload_failures']}",
    ]
    if status["reload_error"]:
        lines += [f"  the last one: {line}" for line in status["reload_error"].splitlines()]
    lines += [f"warning: {line}" for line in status["warnings"][:_MOST_LINES]]
    for interface in status["interfaces"]:
        lines += ["", *_interface(interface)]
        rules = [rule for rule in status["rules"] if rule["interface"] == interface["interface"]]
        lines += _some([_rule(rule) for rule in rules])
    lines += _section("via globs", [_glob(glob, names) for glob, names in status.get("vias", {}).items()])
    lines += _section("neighbours", [_place(host) for host in status["neighbours"]])
    lines += _section("pending", status["pending"])
    lines += _room(status.get("pending_room"))
    lines += _section("host routes", [_place(host) for host in status["host_routes"]])
    lines += _section("kernel proxy entries", [_place(host) for host in status["kernel_proxy_entries"]])
    refused = [f"{count} {what}" for what, count in status["refused"].items() if count]
    if refused:
        lines += ["", f"refused for want of room: {', '.join(refused)}"]
    lines += _section("recent targets", [_target(target) for target in status["targets"]])
    return "\n".join(lines)


def _room(room: Mapping[str, int] | None) -> list[str]:
    if room is None or room["targets"] >= room["limit"]:
        return []
    return [
        "",
        f"at most {room['targets']} targets are resolved at once: the kernel's neighbour table (gc_thresh1, 2 and 3)"
        f" has no room for limits.pending ({room['limit']})",
    ]


def _interface(interface: Mapping[str, Any]) -> list[str]:
    attached = f"attached in {interface['attach']} mode" if interface["attach"] else "not attached"
    lines = [
        f"{interface['interface']}: {interface['datapath']}, {attached}, {'up' if interface['up'] else 'down'}",
        f"  solicitations: {_counts(interface['solicitations'])}",
    ]
    if any(interface["invalid"].values()):
        lines.append(f"  invalid: {_counts(interface['invalid'])}")
    lines.append(f"  advertisements: {_counts(interface['advertisements'])}")
    if interface["xdp_tx_errors"]:
        lines.append(f"  the driver dropped {interface['xdp_tx_errors']} of those by XDP (xdp_tx_errors)")
    return lines


def _rule(rule: Mapping[str, Any]) -> str:
    return f"  rule {rule['rule']} {rule['method']}: {_counts(rule['solicitations'])}"


def _glob(glob: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LINES} more" if len(names) > _MOST_LINES else ""
    return f"{glob}: {', '.join(names[:_MOST_LINES]) or 'none here'}{more}"


def _place(host: Mapping[str, str]) -> str:
    return " ".join(filter(None, (host["address"], "dev", host["interface"], host.get("state", ""))))


def _target(target: Mapping[str, Any]) -> str:
    return (
        f"{target['target']} on {target['interface']}: {_times(target['count'])},"
        f" first {_time(target['first'])}, last {_time(target['last'])}"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}: {len(lines)}", *_some([f"  {line}" for line in lines])] if lines else []


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"  … and {more} more (--json has all)"] if more > 0 else [])]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
