# SPDX-License-Identifier: GPL-2.0-or-later
"""`doctor ADDRESS`: follows one target from the question to the host and back, and names the step that fails.

The steps, in the order in which a packet needs them: daemon, question, rule, decision, answer, forwarding, route,
firewall, host, back, way_back. What a packet can tell is tried with one: an echo request to the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from ipaddress import IPv6Address
from typing import NamedTuple

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.names import word
from npd6_xdp.core.neighbour_messages import PRESENT, NeighbourState
from npd6_xdp.core.neighbours import Host
from npd6_xdp.core.prefix import BITS, Prefix
from npd6_xdp.core.route_messages import HERE, RouteType
from npd6_xdp.core.table import Decision
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.system.echo import answers
from npd6_xdp.system.netlink.inspection import Inspection
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.tools import explain_live
from npd6_xdp.tools.doctor import firewall, forwarding, hosts, running
from npd6_xdp.tools.doctor.facts import Echo, Facts
from npd6_xdp.tools.doctor.finding import Finding, Level, fail, is_failed, note, ok, warn
from npd6_xdp.tools.explain_live import Live

_ANSWERED = (Outcome.ANSWERED_XDP, Outcome.ANSWERED_PYTHON, Outcome.KERNEL)
_THERE = {str(state.name).lower() for state in NeighbourState if state & PRESENT}
_NOT_OURS = (Outcome.UNMATCHED, Outcome.IGNORED, Outcome.INVALID)


class _Way(NamedTuple):
    """Where packets for the target go: out of `behind`, where this machine has the address `near` (None: none of its
    scope); `far` is one of its addresses on the asker's side.
    """

    behind: str
    near: IPv6Address | None
    far: IPv6Address | None


def follow(facts: Facts, target: IPv6Address) -> list[Finding]:
    """What there is to say of each step, on each entry that is concerned."""
    if facts.status is None:
        return [fail("daemon", f"nobody answers for {target}: {facts.no_daemon}", running.start(facts))]
    try:
        found = explain_live.look(facts.control, target)
    except MachineError as error:
        return [fail("daemon", str(error))]
    pid, since = facts.status["pid"], _time(facts.status["started"])
    return [
        ok("daemon", f"npd6-xdp is running, pid {pid}, since {since}"),
        *(each for live in found for each in (_own_side(live, found) or _steps(facts, live))),
    ]


def _own_side(live: Live, found: Sequence[Live]) -> list[Finding]:
    """Of an entry on whose own link the target is, where another one leads to it: nobody there needs us for it."""
    name, ifindex = live.known.l3
    state, _ = live.kernel.neighbours.get(name, ("", ""))
    reply = live.kernel.reply
    if reply is None or reply.ifindex != ifindex or not _THERE & {*state.split("|")}:
        return []
    if all(other.known.l3 == live.known.l3 for other in found):
        return []
    return [ok("question", f"{live.known.entry.label}: {live.known.target} is on its own link, and answers for itself")]


def _steps(facts: Facts, live: Live) -> Iterator[Finding]:
    known = live.known
    yield _question(facts, live)
    yield _rule(live)
    if known.unanswered is not None and known.unanswered[0] in _NOT_OURS:
        return
    if known.unanswered is not None or known.is_held:
        yield ok("decision", f"{known.target} is an address of this machine: packets for it end here")
        return
    onward = [_forwarding(facts, live), _route(facts, live)]
    yield _decision(live, is_explained=is_failed(onward))
    yield _answer(facts, live)
    yield from onward
    way = _way(facts, live)
    if way is None:
        return
    yield from _firewall(facts, live, way)
    if not known.entry.standby:  # else its way out is by the other edge, and no mend here is to change that
        yield from _host(facts, live, way)
    yield _way_back(facts, live)


# --- the question, and its answer ---


def _question(facts: Facts, live: Live) -> Finding:
    """Whether it comes in."""
    known, label = live.known, live.known.entry.label
    port = known.entry.port
    if not known.up:
        return fail(
            "question", f"{label}: {port} is down, so nothing comes in there", f"ip link set dev {word(port)} up"
        )
    if not known.attach:
        text = f"{label}: the daemon's program isn't attached to {port}: {running.log(facts)} says why"
        return fail("question", text)
    entry = facts.ports[port].entry if port in facts.ports else None
    groups = " and takes in all multicast groups" if entry is not None and entry.allmulti > 0 else ""
    here = f"{label}: attached to {port}, which is up{groups}"
    if known.recent is None:
        seen = (
            "no question for it has come in since the daemon has started, or others have taken its place"
            if known.collects
            else "whether a question has come in isn't known without collect_targets; watch for one"
        )
        return note("question", f"{here}; {seen}", *([] if known.collects else [running.watch(facts, known.target)]))
    often = "once" if known.recent["count"] == 1 else f"{known.recent['count']} times"
    last = f"last {_time(known.recent['last'])} by {known.recent['source']} ({known.recent['source_mac']})"
    return ok("question", f"{here}; it was asked for {often}, {last}")


def _rule(live: Live) -> Finding:
    """Whether a rule covers it."""
    known, label = live.known, live.known.entry.label
    if known.unanswered is not None and known.unanswered[0] in _NOT_OURS:
        outcome, why = known.unanswered
        return fail("rule", f"{label}: {known.target} is {outcome}: {why}; write a rule for it, or mend its prefix")
    if known.rule is None:
        return ok("rule", f"{label}: none is needed: {live.foreseen.why}")
    via = f" via {', '.join(known.rule.via)}" if known.rule.via else ""
    return ok("rule", f"{label}: {known.rule.prefix} ({known.rule.method}{via})")


def _decision(live: Live, *, is_explained: bool) -> Finding:
    """What the next question gets. `is_explained`: what is said of forwarding or of the route fails by itself."""
    known, foreseen = live.known, live.foreseen
    text = f"{known.entry.label}: the next question is {foreseen.outcome}: {foreseen.why}"
    match foreseen.outcome:
        case None:
            return fail("decision", f"{known.entry.label}: {foreseen.why}")
        case outcome if outcome in _ANSWERED:
            return ok("decision", text)
        case Outcome.PENDING:
            return note("decision", f"{text}; it is answered once the host is found")
        case Outcome.STANDBY:
            return warn("decision", f"{text}; follow it on the other edge")
        case Outcome.RATE_LIMITED:
            return fail("decision", f'{text}; see docs/operation.md, "Which limit"')
        case Outcome.ABSENT if known.decision is Decision.ROUTE and is_explained:
            return note("decision", f"{text}; what is missing is said below")
        case _:
            return fail("decision", text)


def _answer(facts: Facts, live: Live) -> Finding:
    """Whether the last answer has left."""
    known, label = live.known, live.known.entry.label
    became = None if known.recent is None else Outcome(known.recent["outcome"])
    rows = facts.status["interfaces"] if facts.status else []
    row = next((row for row in rows if row["interface"] == label), None)
    if became in (Outcome.FAILED, Outcome.LOST):
        why = "couldn't be sent" if became is Outcome.FAILED else "was lost, as the ring to Python was full"
        return fail("answer", f"{label}: the last answer {why}")
    if row is not None and row["xdp_tx_errors"]:
        return running.unsent(facts, row)._replace(check="answer")
    return ok("answer", f"{label}: nothing says that answers are lost on the way out")


# --- the packet that follows ---


def _forwarding(facts: Facts, live: Live) -> Finding:
    name, ifindex = live.known.l3
    whole = facts.sysctls.get("conf/all/forwarding") != "0"
    by_the_port = live.known.decision in (Decision.ROUTE, Decision.KERNEL)
    if whole and (facts.forwards.get(ifindex, True) or not by_the_port):
        return ok("forwarding", "on")
    mend = forwarding.mends(facts.receivers, name if whole else "")
    lost = (
        f"{live.known.target} isn't found by its route" if whole else f"what is sent to {live.known.target} is dropped"
    )
    return fail("forwarding", f"{name} doesn't forward, so {lost}", *mend)


def _route(facts: Facts, live: Live) -> Finding:
    """Where the kernel sends the packet."""
    known, reply = live.known, live.kernel.reply
    came_in_by, target = known.l3[0], known.target
    sides = [name for name in known.via if name != came_in_by]
    mend = [f"ip -6 route replace {target}/128 dev {word(sides[0])}"] if len(sides) == 1 else []
    add = "" if mend else "; add one out of the interface that it is behind"
    if reply is None:
        return note("route", f"the kernel doesn't say where it would send what comes in for {target}")
    if reply.type in HERE:
        return ok("route", f"{target} is delivered to this machine")
    if reply.type != RouteType.UNICAST:
        return fail("route", f"no route leads to {target}, or one that lets nothing pass{add}", *mend)
    out = {index: name for name, index in known.via.items()}.get(reply.ifindex) or facts.name(reply.ifindex)
    if reply.ifindex == known.l3[1]:
        back = f"the route to {target} leads back out of {came_in_by}, where the question comes from{add}"
        return fail("route", back, *mend)
    if known.via and out not in known.via:
        return fail("route", f"the route to {target} leads out of {out}, which isn't the rule's via", *mend)
    return ok("route", f"{target} goes out of {out}")


def _way(facts: Facts, live: Live) -> _Way | None:
    """Where the packet goes; None where it goes nowhere that the host may be."""
    reply, known = live.kernel.reply, live.known
    if reply is None or reply.type != RouteType.UNICAST or reply.ifindex == known.l3[1]:
        return None
    behind = facts.name(reply.ifindex)
    target = Prefix(int(IPv6Address(known.target)), BITS)
    near = [each for each in _own(facts, behind) if each[1].covers(target)] or _own(facts, behind)
    far = _own(facts, known.l3[0])
    return _Way(behind, near[0][0] if near else None, far[0][0] if far else None)


def _own(facts: Facts, name: str) -> list[tuple[IPv6Address, Prefix]]:
    """This machine's addresses on an interface that packets can be sent from to other links, with their prefixes."""
    link = facts.links.get(name)
    own = [] if link is None else link.own(())
    return [(each.address, each.network) for each in own if each.usable and not each.address.is_link_local]


def _firewall(facts: Facts, live: Live, way: _Way) -> Iterator[Finding]:
    target = IPv6Address(live.known.target)
    along = firewall.Way(live.known.l3[0], way.behind, Prefix(int(target), BITS), target)
    found = list(firewall.along(facts, along))
    yield from found
    if not found:
        yield ok("firewall", f"no filter drops what is forwarded between {along.near} and {way.behind}")


# --- the host, and back ---


def _host(facts: Facts, live: Live, way: _Way) -> Iterator[Finding]:
    """Whether the host is there, and sends back what came from elsewhere: tried by echo requests."""
    host = IPv6Address(live.known.target)
    if "CAP_NET_RAW" in facts.machine.missing:
        yield note("host", f"whether {host} answers can't be tried without CAP_NET_RAW")
        return
    near = None if way.near is None else answers(host, way.near)
    far = None if way.far is None else answers(host, way.far)
    with closing(Requests()) as requests:
        word = requests.neighbour(Host(live.kernel.reply.ifindex if live.kernel.reply else 0, host.packed))
    tells = near and far and way.far is not None and hosts.is_surely_off(way.far, host)
    if not tells and word.state & PRESENT and word.mac:
        echo = hosts.ask(facts, way.behind, word.mac, host)  # no address of ours may be one that tells
        if echo is not None and (echo.from_near or not near):
            yield from _asked(facts, echo)
            return
    gateways = live.kernel.route.gateways if live.kernel.route else ()
    if near or far:
        yield ok("host", f"{host} behind {way.behind} answers an echo request from {way.near if near else way.far}")
    elif gateways:
        router = IPv6Address(gateways[0][1])
        yield warn("host", f"{host} answers no echo request that goes by the router {router} behind {way.behind}")
        return
    elif not word.state & PRESENT:
        nobody = f"nobody behind {way.behind} answers for {host}: it is off, elsewhere, or has another address"
        yield fail("host", nobody)
        return
    else:
        silent = f"{host} is there, behind {way.behind}, and answers no echo request: it, or this machine, drops them"
        yield note("host", silent)
        return
    if far:
        yield ok("back", f"{host} answers {way.far}, which is off its link, too")
    elif far is None:
        yield note("back", f"{live.known.l3[0]} has no address that {host} could be asked from as from off its link")
    else:
        yield fail(
            "back",
            f"{host} answers {way.near}, and not {way.far}, which is off its link: it has no default route by this"
            " machine, or filters; on that host",
            f"ip -6 route replace default via {way.near}",
        )


def _asked(facts: Facts, echo: Echo) -> Iterator[Finding]:
    """By packets that no route or filter of this machine sees."""
    if echo.from_near:
        yield ok("host", f"{echo.host} behind {echo.interface} answers an echo request")
    if echo.from_far:
        yield ok("back", f"{echo.host} answers who is off its link, too")
    for found in hosts.told(facts, echo, "back" if echo.from_near else "host"):
        yield found._replace(level=Level.FAIL) if found.level is Level.WARN else found


def _way_back(facts: Facts, live: Live) -> Finding:
    """Whether what the host sends finds its way to who asks, or to the rest of the world."""
    asker, upstream = IPv6Address(live.known.source), live.known.l3[0]
    out = ""
    if not asker.is_link_local and not asker.is_unspecified:
        with closing(Inspection()) as inspection:
            reply = inspection.way(asker, facts.links[_way_in(facts, live)].ifindex)
        if reply is None or reply.type != RouteType.UNICAST:
            mend = f"ip -6 route add {asker}/128 dev {word(upstream)}"
            return fail("way_back", f"no route leads to {asker}, who asks, from where the host is", mend)
        out = f"what the host sends to {asker} goes out of {facts.name(reply.ifindex)}"
    if facts.default is None:
        if there := forwarding.elsewhere(facts):
            return ok("way_back", out or f"the default route leads out of {there}")
        text, *brings = forwarding.no_default(facts)
        return warn("way_back", text.replace("there is none", "there is no default route", 1), *brings)
    return ok("way_back", out or f"the default route leads out of {facts.default.interface}")


def _way_in(facts: Facts, live: Live) -> str:
    """The interface that the host's packets come in by."""
    return facts.name(live.kernel.reply.ifindex) if live.kernel.reply else live.known.l3[0]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
