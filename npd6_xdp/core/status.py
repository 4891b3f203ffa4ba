# SPDX-License-Identifier: GPL-2.0-or-later
"""What `status` and the status page say: a Status as plain values, all of them or in brief, and all of them as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import nlargest
from types import MappingProxyType
from typing import Any, TypeVar

from npd6_xdp.core.attached import attached_words
from npd6_xdp.core.judgement import problem_lines
from npd6_xdp.core.snapshot import HostSnapshot, InterfaceSnapshot, RuleSnapshot, Snapshot, Status
from npd6_xdp.core.steps import Steps, finish, listed, pieces
from npd6_xdp.core.verdict import Outcome

T = TypeVar("T")

_MOST_LINES = 20
"""Lines of a list in the text; the JSON has all."""

_MEANT = {str(Outcome.PENDING): " (sent for resolution)"}  # a counter: how many are pending now is another number

_ROWS = 64  # rows of a list that are made at once

_SUMMED = ("solicitations", "invalid", "rate_limited", "advertisements")

MOST_SHOWN = 500
"""Interfaces, and rules, in an overview: it is made and sent every second."""
MOST_LISTED = 10_000
"""Rules that can be searched in."""


def status_json(status: Status) -> dict[str, Any]:
    """All of it, as plain values: counts, seconds since the epoch, addresses as text."""
    return finish(status_values(status))


def status_values(status: Status) -> Steps[dict[str, Any]]:
    """The same, bit by bit."""
    found: dict[str, Any] = {}
    for key, value in _sections(status):
        found[key] = (yield from listed(value)) if isinstance(value, Iterator) else value
    return found


def status_pieces(status: Status) -> Iterator[str]:
    """The very text that json.dumps() makes of it, in pieces of some kilobytes."""
    opening = "{"
    for key, value in _sections(status):
        yield f"{opening}{json.dumps(key)}: "
        opening = ", "
        if not isinstance(value, Iterator):
            yield json.dumps(value)
            continue
        between = "["
        for rows in pieces(value, _ROWS):
            yield between + json.dumps(rows)[1:-1]
            between = ", "
        yield "]" if between == ", " else "[]"
    yield "}"


def _sections(status: Status) -> Iterator[tuple[str, Any]]:
    """What there is to say, in its order; lists that may be long as iterators, which make each row when it is due."""
    yield from _general(status).items()
    details = status.details
    yield "configuration", details.file
    yield "interfaces", (_interface_row(status, each) for each in status.snapshot.interfaces)
    yield "rules", (_rule_row(status.snapshot, each) for each in status.snapshot.rules)
    yield "neighbours", map(_host_row, details.hosts)
    yield "pending", map(str, details.pending)
    yield "pending_room", details.capacity and {"targets": details.capacity[0], "limit": details.capacity[1]}
    yield "host_routes", map(_host_row, details.host_routes)
    yield "host_routes_missing", map(_host_row, details.host_routes_missing)
    yield "kernel_proxy_entries", map(_host_row, details.proxy_entries)
    yield "vias", {glob: list(names) for glob, names in details.vias.items()}
    yield "refused", dict(status.refused)
    yield (
        "targets",
        (
            {
                "interface": target.label,
                "target": str(target.target),
                "outcome": str(target.outcome),
                "source": str(target.source),
                "source_mac": target.source_mac,
                "first": target.first,
                "last": target.last,
                "count": target.count,
            }
            for target in details.targets
        ),
    )


def overview_json(status: Status) -> dict[str, Any]:
    """The same in brief: numbers where status_json() has lists of addresses, and of bounded length. No details.

    At most MOST_SHOWN interfaces (the first) and rules (those with the most solicitations) are in it, in the order of
    the file; `left_out` says how many more there are. `totals` are sums over all interfaces.
    """
    return finish(overview_values(status))


def overview_values(status: Status) -> Steps[dict[str, Any]]:
    """The same, bit by bit."""
    now = status.snapshot
    totals: dict[str, dict[str, int]] = {key: {} for key in _SUMMED}
    interfaces: list[dict[str, Any]] = []
    for some in pieces(now.interfaces, _ROWS):
        for interface in some:
            row = _interface_row(status, interface)
            for key, sums in totals.items():
                _add(sums, row[key])
            if len(interfaces) < MOST_SHOWN:
                interfaces.append(row)
        yield
    rules = yield from _busiest(now.rules)
    return {
        **_general(status),
        "totals": totals,
        "interfaces": interfaces,
        "rules": [_rule_row(now, rule) for rule in rules],
        "left_out": {
            "interfaces": len(now.interfaces) - len(interfaces),
            "rules": len(now.rules) - len(rules),
        },
        "neighbours": dict(now.neighbours),
        "pending": status.pending,
        "host_routes": status.host_routes,
        "host_routes_missing": now.host_routes_missing,
        "kernel_proxy_entries": dict(now.proxy_entries),
        "refused": dict(status.refused),
    }


def _general(status: Status) -> dict[str, Any]:
    now = status.snapshot
    return {
        "state": str(now.judgement.state),
        "headline": now.judgement.headline,
        "problems": [{"kind": str(each.kind), "text": each.text} for each in now.judgement.problems],
        "time": now.time,
        "host": status.host,
        "namespace": status.namespace,
        "build": dict(now.build),
        "pid": status.pid,
        "started": status.started,
        "last_reload": now.last_reload,
        "reload_failures": now.reload_failures,
        "reload_error": status.reload_error,
        "warnings": list(status.warnings),
    }


def _interface_row(status: Status, interface: InterfaceSnapshot) -> dict[str, Any]:
    return {
        "interface": interface.label,
        "port": interface.port,
        "attach": interface.attach,
        "attach_reason": interface.attach_reason,
        "datapath": interface.datapath,
        "up": interface.up,
        "active_with": interface.active_with,
        "active": interface.active,
        "role": interface.role,
        "announcements": interface.announcements,
        "solicitations": {str(outcome): interface.outcomes.get(outcome, 0) for outcome in Outcome},
        "invalid": {str(reason): count for reason, count in interface.reasons.items()},
        "rate_limited": {str(limit): count for limit, count in interface.limits.items()},
        "advertisements": dict(interface.advertisements),
        "lost": interface.lost,
        "xdp_tx_errors": status.snapshot.tx_errors.get(interface.port),
    }


def _rule_row(snapshot: Snapshot, rule: RuleSnapshot) -> dict[str, Any]:
    return {
        "interface": rule.label,
        "rule": rule.prefix,
        "method": rule.method,
        "solicitations": {str(outcome): count for outcome, count in snapshot.rule_outcomes(rule).items()},
    }


def rules_values(snapshot: Snapshot) -> Steps[dict[str, Any]]:
    """All rules, to search in: [interface, rule, method, outcomes that there were] of each, and how many are left out.

    At most MOST_LISTED: those with the most solicitations.
    """
    found = []
    for some in pieces((yield from _busiest(snapshot.rules, MOST_LISTED))):
        for rule in some:
            counts = {str(outcome): count for outcome, count in rule.outcomes.items() if count}
            found.append([rule.label, rule.prefix, str(rule.method), counts])
        yield
    return {"time": snapshot.time, "rules": found, "left_out": len(snapshot.rules) - len(found)}


def _busiest(rules: Sequence[RuleSnapshot], most: int = MOST_SHOWN) -> Steps[Sequence[RuleSnapshot]]:
    if len(rules) <= most:
        return rules
    # among rules with equal counts, those that come first in the file
    chosen: list[tuple[int, int]] = []
    for piece in pieces(range(len(rules))):
        asked = [(sum(rules[number].outcomes.values()), -number) for number in piece]
        chosen = nlargest(most, chosen + asked)
        yield
    return [rules[-number] for _, number in sorted(chosen, key=lambda each: -each[1])]


def _add(sums: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        sums[name] = sums.get(name, 0) + count


def _host_row(host: HostSnapshot) -> dict[str, str]:
    return {"interface": host.interface, "address": str(host.address)} | ({"state": host.state} if host.state else {})


def status_text(status: Mapping[str, Any]) -> str:
    """What status_json() gives, to read."""
    return "\n".join(status_lines(status))


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The lines of that, each made when it is due."""
    yield status["headline"]
    yield from (f"  {line}" for line in problem_lines(status, _MOST_LINES))
    build = status["build"]
    yield (
        f"npd6-xdp {build['version']}, pid {status['pid']}, up since {_time(status['started'])};"
        f" bcc {build['bcc']}, Linux {build['kernel']}"
    )
    yield (
        f"configuration: {status['configuration']}, in use since {_time(status['last_reload'])};"
        f" reloads that failed: {status['reload_failures']}"
    )
    rules: dict[str, list[Mapping[str, Any]]] = {}
    for rule in status["rules"]:
        rules.setdefault(rule["interface"], []).append(rule)
    for interface in status["interfaces"]:
        yield from ("", *_interface(interface))
        yield from _some(rules.get(interface["interface"], ()), _rule)
    vias = [*status.get("vias", {}).items()]
    yield from _section("via globs", vias, lambda each: _glob(*each))
    yield from _section("neighbours", status["neighbours"], _host)
    yield from _section("pending", status["pending"], str, " being resolved")
    yield from _capacity(status.get("pending_room"))
    yield from _section("host routes", status["host_routes"], _host)
    yield from _section("host routes missing", status.get("host_routes_missing", ()), _host)
    yield from _section("kernel proxy entries", status["kernel_proxy_entries"], _host)
    refused = [f"{count} {what}" for what, count in status["refused"].items() if count]
    if refused:
        yield from ("", f"refused, no space left: {', '.join(refused)}")
    yield from _section("recent targets", status["targets"], _target)


def _capacity(capacity: Mapping[str, int] | None) -> list[str]:
    if capacity is None or capacity["targets"] >= capacity["limit"]:
        return []
    return [
        "",
        f"at most {capacity['targets']} targets are resolved at once: the kernel's neighbour table"
        f" (gc_thresh1, 2 and 3) has no space for limits.pending ({capacity['limit']})",
    ]


def _interface(interface: Mapping[str, Any]) -> list[str]:
    attached = attached_words(interface["attach"])
    state = "up" if interface["up"] else "down"
    lines = [
        f"{interface['interface']}: {attached}, datapath {interface['datapath']}, {state}",
        *([f"  not native: {interface['attach_reason']}"] if interface["attach_reason"] else []),
        *([f"  {interface['role']}"] if interface["role"] else []),
        f"  solicitations: {_counts(interface['solicitations'], _MEANT)}",
    ]
    if any(interface["invalid"].values()):
        lines.append(f"  invalid: {_counts(interface['invalid'])}")
    if any(interface["rate_limited"].values()):
        lines.append(f"  rate_limited: {_counts(interface['rate_limited'])}")
    late = late_answers(interface)
    after = f" ({late} after resolution)" if late else ""
    lines.append(f"  advertisements: {_counts(interface['advertisements'])}{after}")
    if interface["announcements"]:
        lines.append(f"  announcements: {interface['announcements']}")
    if interface["xdp_tx_errors"]:
        lines.append(f"  the driver dropped {interface['xdp_tx_errors']} of those by XDP (xdp_tx_errors)")
    return lines


def _rule(rule: Mapping[str, Any]) -> str:
    return f"  rule {rule['rule']} {rule['method']}: {_counts(rule['solicitations'])}"


def _glob(glob: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LINES} more" if len(names) > _MOST_LINES else ""
    return f"{glob}: {', '.join(names[:_MOST_LINES]) or 'none here'}{more}"


def _host(host: Mapping[str, str]) -> str:
    return " ".join(filter(None, (host["address"], "dev", host["interface"], host.get("state", ""))))


def _target(target: Mapping[str, Any]) -> str:
    return (
        f"{target['target']} on {target['interface']}: {_times(target['count'])},"
        f" first {_time(target['first'])}, last {_time(target['last'])} by {target['source']} ({target['source_mac']}):"
        f" {target['outcome']}"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def late_answers(counted: Mapping[str, Mapping[str, int]]) -> int:
    """How many advertisements went out after their targets were resolved, of an interface or of all."""
    by_python = counted["advertisements"].get("python", 0)
    return max(0, by_python - counted["solicitations"][Outcome.ANSWERED_PYTHON])


def _counts(counts: Mapping[str, int], meant: Mapping[str, str] = MappingProxyType({})) -> str:
    return ", ".join(f"{name} {count}{meant.get(name, '')}" for name, count in counts.items() if count) or "none"


def _section(title: str, items: Sequence[T], line: Callable[[T], str], what: str = "") -> Iterator[str]:
    if items:
        yield from ("", f"{title}: {len(items)}{what}")
        yield from _some(items, lambda item: f"  {line(item)}")


def _some(items: Sequence[T], line: Callable[[T], str]) -> Iterator[str]:
    yield from map(line, items[:_MOST_LINES])
    if len(items) > _MOST_LINES:
        yield f"  … and {len(items) - _MOST_LINES} more (--json has all)"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
