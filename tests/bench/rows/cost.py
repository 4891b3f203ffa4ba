# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows 1 to 3: what the XDP program costs a frame, in times of one that only passes, and how that grows."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, RuleConfig, Vlan
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import PresentFlag, Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.testrun import XDP_TX
from tests.bench import program
from tests.bench.chain import Chain
from tests.bench.plan import Run
from tests.bench.program import Cost, Harness, Vary
from tests.bench.results import Curve, Figure, at_most, middle
from tests.datapath.harness import PORT, Bench, entry, link, rule
from tests.datapath.present import LAN
from tests.frames import SETTING
from tests.kernels.machine import walked_of
from tests.kinds import solicit

_PAYLOAD = bytes(100)
_LINK = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
FOREIGN = {
    "TCP over IPv6": bytes(_LINK / IPv6(src="2001:db8::1", dst="2001:db8:1::42") / TCP() / _PAYLOAD),
    "TCP over IPv4": bytes(_LINK / IP(src="192.0.2.1", dst="192.0.2.2") / TCP() / _PAYLOAD),
}
"""Frames that are none of our business."""
_WALKED = 100_000  # instructions of the verifier's million
_HOST = IPv6Address("2001:db8:1::42").packed  # the lab's edge has a route to it, out of lan0
_WHOLE = str(program.TARGETS)
_TAGS = {(): b"", (100,): bytes.fromhex("81000064"), (100, 7): bytes.fromhex("88a8006481000007")}


@dataclass(frozen=True, slots=True)
class _Case:
    """An answer of row 2: the rule's method, the frame's tags, and the most that it may cost in times of bare."""

    name: str
    limit: float
    method: Method = Method.STATIC
    tags: tuple[int, ...] = ()

    @property
    def frame(self) -> bytes:
        return solicit(replace(SETTING, target=_HOST, tags=_TAGS[self.tags]))

    def table(self, facts: LinkFacts) -> Table:
        """One rule, for all that comes with these tags."""
        if self.method is Method.STATIC:
            wanted = rule(_WHOLE)
        else:
            via = (LAN.name,) if self.method is Method.NEIGHBOUR else ()
            wanted = RuleConfig(_WHOLE, (Prefix.of(_WHOLE),), self.method, via=via)
        return build(Config((entry(wanted, vlan=Vlan(tags=self.tags)),)), {PORT: facts, LAN.name: LAN})


_STATIC = _Case("static, one prefix", 1.0)
_ROUTE = _Case("2r: route, less bpf_fib_lookup alone", 1.2, Method.ROUTE)
_CASES = (
    _STATIC,
    _Case("static, one prefix, one tag", 1.5, tags=(100,)),
    _Case("static, one prefix, two tags (QinQ)", 1.7, tags=(100, 7)),
    _Case("2n: neighbour, a known host", 2.2, Method.NEIGHBOUR),
    _ROUTE,
)


def foreign_traffic(run: Run) -> None:
    """Row 1: others' traffic."""
    found: defaultdict[str, list[Cost]] = defaultdict(list)
    for _ in range(run.plan.loads):
        with program.loaded(program.one_prefix()) as bench, program.bare_program() as bare:
            for name, frame in FOREIGN.items():
                fd = bench.ns_filter.program.fd
                found[name].append(program.cost_of_a_frame(fd, bare, frame, run.plan.growth_program))
    for name, costs in found.items():
        _over_bare(run, 1, f"{name}, passed on, over the bare program", costs, 0.1)


def answers(run: Run) -> None:
    """Rows 2 and 3: solicitations that XDP answers."""
    if 2 in run.wanted:
        _one_rule(run)
    if 3 in run.wanted:
        _many(run)


def _one_rule(run: Run) -> None:
    """Row 2, in the lab's edge, where there is a route to ask for; all is loaded anew again and again."""
    found: defaultdict[_Case, list[Cost]] = defaultdict(list)
    lookups: list[Cost] = []
    with Topology() as topology, topology.inside("edge"), ExitStack() as stack:
        facts = replace(link(), ifindex=socket.if_nametoindex("wan0"))
        harnesses = {
            case.tags: stack.enter_context(closing(Harness(Vary.FIXED, 1, case.frame, facts.ifindex)))
            for case in _CASES
        }
        for _ in range(run.plan.loads):
            with _at(facts) as bench, program.bare_program() as bare, program.only_fib_lookup() as fib:
                for case in _CASES:
                    wanted = case.table(facts)
                    bench.use(wanted)
                    if case.method is Method.NEIGHBOUR:
                        bench.ns_filter.set_present(wanted.rules[0].via_set, _HOST, PresentFlag(0))
                    fd, harness = bench.ns_filter.program.fd, harnesses[case.tags]
                    found[case].append(harness.cost(fd, bare, XDP_TX, run.plan.growth_program))
                lookups.append(harnesses[()].cost(fib, bare, XDP_TX, run.plan.growth_program))
                walked = [walked_of(each) for each in (bench.ns_filter.program.fd, bench.ns_filter.program.tc_fd)]
    for case, costs in found.items():
        less = lookups if case is _ROUTE else None
        _over_bare(run, 2, f"an answer, {case.name}, over the bare program", costs, case.limit, less)
    each = f"{walked[0]:,} for XDP, {walked[1]:,} for tc"
    name = "instructions that the verifier walks"
    run.results.figures.append(Figure(2, name, max(walked), "", at_most(_WALKED), note=each))
    run.say(f"row 2: the verifier walks {each} instructions")


@contextmanager
def _at(facts: LinkFacts) -> Iterator[Bench]:
    """The real program, whose frames come in by a port that is there, with maps for all of the cases."""
    first = _CASES[3].table(facts)
    with closing(Bench(first, pages=16, ifindex=facts.ifindex)) as bench:
        yield bench


def _over_bare(
    run: Run, row: int, name: str, costs: Sequence[Cost], limit: float, less: Sequence[Cost] | None = None
) -> None:
    """A load's ratio is of runs that took turns; the figure is the median of the loads'."""
    over = [cost.median for cost in costs]
    bare = [middle(cost.bare) for cost in costs]
    alone = [cost.median for cost in less or ()]
    beyond = [one - other for one, other in zip(over, alone, strict=True)] if less else over
    raw = {"over, ns, a load each": over, "bare, ns": bare} | ({"bpf_fib_lookup alone, ns": alone} if less else {})
    note = f"{middle(over):+.1f} ns over {middle(bare):.0f}" + (f", of which {middle(alone):.0f} alone" if less else "")
    value = run.results.ratio(row, name, list(zip(beyond, bare, strict=True)), at_most(limit), note, raw)
    run.say(f"row {row}: {name}: {value:.2f} times ({note})")


def _many(run: Run) -> None:
    """Row 3: over the program with one prefix, which gets the same frames in turns, in waits for memory."""
    plan = run.plan
    with program.loaded(program.one_prefix()) as one, program.bare_program() as bare, Chain(plan.chain) as chain:
        for what, vary, make, sizes in (
            ("exact addresses", Vary.EXACT, program.exact_addresses, plan.exact),
            ("prefixes", Vary.PREFIX, program.prefixes, plan.prefixes),
        ):
            most = sizes[-1]
            waits, over = [], []
            with program.loaded(make(most)) as bench, closing(Harness(vary, most)) as harness:
                fds = bench.ns_filter.program.fd, one.ns_filter.program.fd
                for _ in range(plan.repeats):
                    before = chain.look_up()
                    over.append(harness.between(*fds, XDP_TX, plan.growth_program).median)
                    waits.append((before + chain.look_up()) / 2)
                whole = harness.cost(fds[0], bare, XDP_TX, plan.growth_program)
            name = f"an answer, {most:,} {what} loaded, over one with one prefix"
            note = f"{middle(over):+.0f} ns; a look-up that waits for memory takes {middle(waits):.0f}"
            raw = {"over, ns": over, "a wait, ns": waits}
            times = middle([one / other for one, other in zip(over, waits, strict=True)])
            run.results.figures.append(Figure(3, name, times, "misses", at_most(2.5), raw, note))
            run.say(f"row 3: {name}: {times:.2f} misses ({note})")
            _grow(run, f"answer, {what}", vary, make, sizes[:-1], [(most, whole)])
    _grow(run, "answer, VLANs of one port", Vary.VLAN, program.vlans, plan.vlans)
    _grow(run, "refused by the limit, source MACs", Vary.SOURCE, lambda _: program.limited(), plan.sources)


def _grow(
    run: Run,
    name: str,
    vary: Vary,
    make: Callable[[int], Table],
    sizes: Sequence[int],
    known: Sequence[tuple[int, Cost]] = (),
) -> None:
    """A curve of the growth plot."""
    found = list(known)
    action = program.LIMITED_ACTION if vary is Vary.SOURCE else XDP_TX
    for size in sizes:
        found.append((size, program.cost_of_answers(make(size), vary, size, run.plan.growth_program, action)))
        run.say(f"growth: {name}: {size:,}: {found[-1][1].median:+.1f} ns")
    if len(found) > 1:
        found.sort(key=lambda each: each[0])
        points = [float(size) for size, _ in found], [cost.median for _, cost in found]
        run.results.curves.append(Curve("cost of an NS against the number of", name, *points))
