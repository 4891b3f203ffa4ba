# SPDX-License-Identifier: GPL-2.0-or-later
"""`explain --live` in words: a line for each thing that is known, and the outcome of the next solicitation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from ipaddress import IPv6Address

from npd6_xdp.core.attached import attached_words
from npd6_xdp.core.config import Datapath
from npd6_xdp.core.live import Foreseen, Kernel, Known
from npd6_xdp.core.reasons import REFUSED, frames_of
from npd6_xdp.core.route_messages import HERE, TABLE_MAIN, RouteType
from npd6_xdp.core.table import Decision
from npd6_xdp.core.verdict import Outcome

_ROUTES = {6: "blackhole", 7: "unreachable", 8: "prohibit"}  # rtm_type, of those that let nothing pass


def live_text(known: Known, kernel: Kernel, foreseen: Foreseen) -> str:
    """All of one entry's."""
    lines = [f"{known.source} asks on {frames_of(known.entry.port, known.vlan)} who has {known.target}"]
    lines += [f"  {line}" for line in _lines(known, kernel)]
    outcome = "none" if foreseen.outcome is None else str(foreseen.outcome)
    lines.append(f"outcome: {outcome} ({foreseen.why})")
    if foreseen.note:
        lines.append(f"  {foreseen.note}")
    return "\n".join(lines)


def _lines(known: Known, kernel: Kernel) -> Iterator[str]:
    yield f"port: {_port(known)}"
    if known.role:
        yield f"role: {known.role}"
    if known.rule is not None:
        via = f" via {', '.join(known.rule.via)}" if known.rule.via else ""
        yield f"rule: {known.rule.prefix} ({known.rule.method}{via}) of {known.entry.label}"
    yield f"neighbour table: {_neighbours(known, kernel)}"
    yield f"route: {_route(known, kernel)}"
    yield from _known(known)
    if known.waiting is not None:
        waiting = known.waiting
        more = "" if waiting.has_space else "; no more are remembered"
        where = " and ".join(waiting.behind)
        yield f"pending: for {waiting.seconds:.1f} s, {_count(waiting.askers, 'asker')} waiting{more}; behind {where}"
    yield from (f"refused: {REFUSED[limit]}" for limit in known.refuses)
    if known.space:
        yield f"space: {known.space}"
    yield f"recent: {_recent(known)}"


def _port(known: Known) -> str:
    attached = attached_words(known.attach)
    who = {
        Datapath.HYBRID: "XDP answers, Python what XDP can't",
        Datapath.PYTHON: "Python answers",
        Datapath.MONITOR: "counted only, nothing is answered",
    }[known.entry.datapath]
    if known.entry.standby:
        who = "the other edge answers"
    return f"{known.entry.port}: {attached}, datapath {known.entry.datapath} ({who}), {'up' if known.up else 'down'}"


def _neighbours(known: Known, kernel: Kernel) -> str:
    if not kernel.neighbours:
        where = " and ".join(dict.fromkeys([*known.via, known.l3[0]]))
        return f"no entry on {where}"
    return ", ".join(
        " ".join(filter(None, (name, state, mac))) for name, (state, mac) in sorted(kernel.neighbours.items())
    )


def _route(known: Known, kernel: Kernel) -> str:
    reply, route = kernel.reply, kernel.route
    came_in_by = known.l3[0]
    if reply is None:
        return "the kernel doesn't say"
    if reply.type in _ROUTES:
        return f"one that lets nothing pass ({_ROUTES[reply.type]})"
    if reply.type in HERE:
        return "delivered to this machine"
    if reply.type != RouteType.UNICAST:
        return f"none for what comes in by {came_in_by}"
    names = {index: name for name, index in known.via.items()} | {known.l3[1]: came_in_by}
    out = names.get(reply.ifindex, f"interface {reply.ifindex}")
    words = [f"{IPv6Address(route.destination)}/{route.length}" if route and route.length else "default", f"dev {out}"]
    if route is not None:
        words[1:1] = [f"via {IPv6Address(gateway)}" for _, gateway in route.gateways[:1]]
        words += [f"table {route.table}"] if route.table != TABLE_MAIN else []
    if reply.ifindex == known.l3[1]:
        words.append("(where the question comes from)")
    elif known.rule is not None and known.decision is Decision.ROUTE and not kernel.leads_there:
        words.append("(which doesn't count for this rule, or isn't forwarded)")
    return " ".join(words)


def _known(known: Known) -> Iterator[str]:
    """What the daemon believes of a host."""
    asked = "" if known.asked is None else f"; asked for {known.asked:.0f} s ago"
    if known.behind:
        hosts = ", ".join(f"behind {name} ({state})" for name, state in sorted(known.behind.items()))
        yield f"known: {hosts}{asked}"
    elif known.decision is Decision.NEIGHBOUR:
        yield "known: not as a host that is there"
    if known.doubted:
        yield (
            f"known: its entry on {' and '.join(known.doubted)} doesn't count: nobody has confirmed it, it is another"
            " proxy's, or it is elsewhere"
        )
    if known.elsewhere:
        yield f"known: on {known.l3[0]} itself, where the question comes from ({known.elsewhere})"
    if known.away:
        yield f"known: away; it was behind {' and '.join(known.away)}, and its route is kept for a while"
    if known.decision is Decision.KERNEL:
        has = f"the kernel's proxy has an entry of ours{asked}" if known.proxied else "no proxy entry of ours yet"
        yield f"known: {has}"
    if known.is_held:
        yield "known: an address of this host"


def _recent(known: Known) -> str:
    recent = known.recent
    if recent is None:
        return "not remembered (see collect_targets)"
    first, last = (
        datetime.fromtimestamp(recent[key]).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") for key in ("first", "last")
    )
    count = recent["count"]
    often = "once" if count == 1 else f"{count} times"
    late = ", and answered if it was found since" if recent["outcome"] == Outcome.PENDING else ""
    who = f"{recent['source']} ({recent['source_mac']})"
    return f"asked for {often}, first {first}, last {last} by {who}: {recent['outcome']}{late}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
