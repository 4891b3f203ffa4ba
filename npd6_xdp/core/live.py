# SPDX-License-Identifier: GPL-2.0-or-later
"""`explain --live`: what the daemon and the kernel know of a question at this moment, and what that makes of the next
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any, NamedTuple

from npd6_xdp.core.asked import Asked
from npd6_xdp.core.config import Datapath
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.reasons import Decided, why
from npd6_xdp.core.route_messages import RouteEntry, RouteReply, RouteType
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.table import Decision
from npd6_xdp.core.verdict import Limit, Outcome

NO_MAC = bytes(6)


class Waiting(NamedTuple):
    """A target that is pending: for how many seconds, how many wait, whether one more may, and where it is sought."""

    seconds: float
    askers: int
    has_space: bool
    behind: tuple[str, ...]


class Known(NamedTuple):
    """What the daemon knows of a target that `source` asks for on one entry, where the frames have these VLAN ids.

    `mac` is the asker's (6 bytes), b"" where nobody knows it. `attach` is "" on a port that isn't attached. `l3` is the
    interface that the kernel takes the frames to come in by. `decision` is the table's, and `unanswered` what it says
    by itself, with why. `via` are the interfaces behind which the target may live, with their indexes; `nowhere` those
    that lead nowhere.

    Of a host by that address: `behind` has the states that count, by interface, and `doubted` the interfaces whose
    entry doesn't count; `elsewhere` is its state on the asker's own side ("" for none); `away` is behind which it was,
    if its route is kept. `proxied`: the kernel's proxy has an entry of ours. `asked` is for how many seconds nobody has
    asked for it, where it is present. `refuses` are the limits that have nothing left.
    """

    target: str
    source: str
    mac: bytes
    vlan: tuple[int, ...]
    entry: EntryFacts
    role: str
    attach: str
    up: bool
    l3: tuple[str, int]
    rule: RuleFacts | None = None
    decision: Decision | None = None
    unanswered: tuple[Outcome, str] | None = None
    is_held: bool = False
    defends: bool = False
    xdp_source: bool = True
    hidden: str = ""
    via: Mapping[str, int] = {}
    nowhere: tuple[int, ...] = ()
    routing: RoutingFlag = RoutingFlag(0)
    kept: bool | None = None
    behind: Mapping[str, str] = {}
    doubted: tuple[str, ...] = ()
    confirmed: bool = False
    elsewhere: str = ""
    away: tuple[str, ...] = ()
    waiting: Waiting | None = None
    proxied: bool = False
    asked: float | None = None
    refuses: tuple[Limit, ...] = ()
    space: str = ""
    recent: Mapping[str, Any] | None = None
    collects: bool = False

    @property
    def is_dad(self) -> bool:
        """Whether the question is a probe of Duplicate Address Detection."""
        return IPv6Address(self.source).is_unspecified

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            **self._asdict(),
            "mac": self.mac.hex(),
            "entry": self.entry.as_json(),
            "rule": self.rule and self.rule.as_json(),
            "waiting": self.waiting and self.waiting._asdict(),
        }

    @classmethod
    def parse(cls, said: Mapping[str, Any]) -> Known:
        """What as_json() gives, once it was JSON. ValueError, TypeError or KeyError for anything else."""
        waiting, unanswered, decision = said["waiting"], said["unanswered"], said["decision"]
        name, ifindex = said["l3"]
        return cls(
            **{
                **said,
                "mac": bytes.fromhex(said["mac"]),
                "vlan": tuple(said["vlan"]),
                "entry": EntryFacts.parse(said["entry"]),
                "l3": (str(name), int(ifindex)),
                "rule": said["rule"] and RuleFacts.parse(said["rule"]),
                "decision": None if decision is None else Decision(decision),
                "unanswered": unanswered and (Outcome(unanswered[0]), str(unanswered[1])),
                "nowhere": tuple(said["nowhere"]),
                "routing": RoutingFlag(said["routing"]),
                "doubted": tuple(said["doubted"]),
                "away": tuple(said["away"]),
                "waiting": waiting and Waiting(**{**waiting, "behind": tuple(waiting["behind"])}),
                "refuses": tuple(map(Limit, said["refuses"])),
            }
        )


class Kernel(NamedTuple):
    """What the kernel's tables say of the target: what it would do with a packet for it that came in by the L3
    interface (None: it doesn't say), whether that counts as there for method route, by which route, and the state and
    MAC address of its neighbour entries by interface ("" for a MAC that isn't known).
    """

    reply: RouteReply | None
    leads_there: bool
    route: RouteEntry | None
    neighbours: Mapping[str, tuple[str, str]]


class Foreseen(NamedTuple):
    """What the next solicitation gets, and why. None: the daemon sees none. `note` says when it may be another."""

    outcome: Outcome | None
    why: str
    note: str = ""


def foresee(known: Known, kernel: Kernel) -> Foreseen:
    """The outcome of the next one, by the same steps as ns_filter() and what is behind it go."""
    if not known.attach:
        return Foreseen(None, f"{known.entry.port} isn't attached, so the kernel alone sees what comes there")
    if not known.up:
        return Foreseen(None, f"{known.entry.port} is down, so nothing comes in there")
    if known.unanswered is not None:
        return Foreseen(*known.unanswered)
    outcome, limit = _became(known, kernel)
    # as if it came by multicast from where an answer can go
    frame = b"\x33\x33\xff\0\0\0" + (known.mac or NO_MAC) + b"\x86\xdd"
    asked = Asked.of(frame)._replace(source=IPv6Address(known.source).packed, vlan=known.vlan)
    decided = Decided(outcome, asked, known.entry, known.rule, known.decision, None, limit, is_held=known.is_held)
    text = why(decided)
    if limit is Limit.CROWDED and known.waiting is not None and not known.waiting.has_space:
        text = f"{known.waiting.askers} wait for it already, and no more are remembered"
    if outcome is Outcome.RATE_LIMITED:
        return Foreseen(outcome, text, "as soon as there is space again, another")
    if outcome is Outcome.ANSWERED_XDP and known.hidden == "sampled" and not known.vlan:
        return Foreseen(outcome, text, f"one a second is {Outcome.ANSWERED_PYTHON}: a look for VLAN tags beside frames")
    return Foreseen(outcome, text)


def _became(known: Known, kernel: Kernel) -> tuple[Outcome, Limit | None]:
    """The outcome of what a rule covers, and the limit that is in its way."""
    decision, dad = known.decision, known.is_dad
    if dad and not known.defends:
        return Outcome.DAD, None
    # where XDP has to ask Python, a role or a monitor that doesn't answer comes first
    asks_first = _is_route_unknown(known, kernel) and (known.entry.standby or _only_counts(known))
    if decision is Decision.ROUTE and not (kernel.leads_there if known.kept is None else known.kept) and not asks_first:
        return Outcome.ABSENT, None
    if known.entry.standby:
        return Outcome.STANDBY, None
    if _only_counts(known):
        return Outcome.MONITORED, None
    if decision is Decision.KERNEL and known.proxied:
        return Outcome.KERNEL, None
    if Limit.NEW_TARGET in known.refuses and not dad and decision is not Decision.NEIGHBOUR:
        return Outcome.RATE_LIMITED, Limit.NEW_TARGET
    misses = (
        (decision is Decision.NEIGHBOUR and not known.behind)
        or decision is Decision.KERNEL
        or (decision is Decision.ROUTE and _is_route_unknown(known, kernel))
    )
    is_held = known.hidden == "guarded" and not known.vlan
    if known.entry.datapath is Datapath.HYBRID and known.xdp_source and not (dad or misses or is_held):
        return Outcome.ANSWERED_XDP, None
    first = (Limit.PENDING, Limit.CROWDED) if misses and decision is Decision.NEIGHBOUR else ()
    for limit in (*first, Limit.SOURCE, Limit.ALL):
        if limit in known.refuses:
            return Outcome.RATE_LIMITED, limit
    if decision is Decision.NEIGHBOUR and (misses or (dad and not known.confirmed)):
        return _python(known, misses=misses)
    return Outcome.ANSWERED_PYTHON, None


def _python(known: Known, *, misses: bool) -> tuple[Outcome, Limit | None]:
    """What Python makes of a target that it has to look for, or of a probe for one that is to be asked first."""
    if misses and (not known.via or known.elsewhere):
        return Outcome.ABSENT, None
    if known.waiting is None:
        for limit in (*((Limit.FULL,) if misses else ()), Limit.PENDING, Limit.CROWDED):
            if limit in known.refuses:
                return Outcome.RATE_LIMITED, limit
    elif not known.waiting.has_space:
        return Outcome.RATE_LIMITED, Limit.CROWDED
    return Outcome.PENDING, None


def _only_counts(known: Known) -> bool:
    return known.entry.datapath is Datapath.MONITOR or (known.hidden == "silent" and not known.vlan)


def _is_route_unknown(known: Known, kernel: Kernel) -> bool:
    """Whether bpf_fib_lookup() can't tell where the target is, and Python asks the kernel."""
    if known.kept is not None:
        return False
    is_found = kernel.reply is not None and kernel.reply.type == RouteType.UNICAST
    return bool(known.routing & RoutingFlag.ALL or (known.routing & RoutingFlag.UNFOUND and not is_found))
