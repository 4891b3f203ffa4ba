# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows 1 to 3: what the XDP program costs a frame, in nanoseconds, and how that grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from npd6_xdp.core.table import Table
from npd6_xdp.system.bpf.testrun import XDP_TX
from tests.bench import program
from tests.bench.plan import Run
from tests.bench.program import Cost, Vary
from tests.bench.results import Curve, Figure, at_most, middle

_PAYLOAD = bytes(100)
_LINK = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
FOREIGN = {
    "TCP over IPv6": bytes(_LINK / IPv6(src="2001:db8::1", dst="2001:db8:1::42") / TCP() / _PAYLOAD),
    "TCP over IPv4": bytes(_LINK / IP(src="192.0.2.1", dst="192.0.2.2") / TCP() / _PAYLOAD),
}
"""Frames that are none of our business."""


def foreign_traffic(run: Run) -> None:
    """Row 1: others' traffic."""
    with program.loaded(program.one_prefix()) as bench, program.bare_program() as bare:
        for name, frame in FOREIGN.items():
            cost = program.cost_of_a_frame(bench.ns_filter.program.fd, bare, frame, run.plan.program)
            run.results.figures.append(
                Figure(1, f"{name}, passed on", cost.median, "ns", at_most(6), _raw(cost), _over(cost))
            )
            run.say(f"row 1: {name}: {cost.median:+.1f} ns")


def answers(run: Run) -> None:
    """Rows 2 and 3: solicitations that XDP answers."""
    plan, figures = run.plan, run.results.figures
    base = program.cost_of_answers(program.one_prefix(), Vary.FIXED, 1, plan.program)
    figures.append(Figure(2, "an answer, one prefix loaded", base.median, "ns", at_most(150), _raw(base), _over(base)))
    run.say(f"row 2: {base.median:+.1f} ns")
    for what, vary, make, sizes, bound in (
        ("exact addresses", Vary.EXACT, program.exact_addresses, plan.exact, 1.5),
        ("prefixes", Vary.PREFIX, program.prefixes, plan.prefixes, 3.0),
    ):
        for_row = sizes[-1]
        most = program.cost_of_answers(make(for_row), vary, for_row, plan.program)
        ratio = most.median / base.median
        figures.append(
            Figure(
                3,
                f"an answer, {for_row:,} {what} loaded, over row 2",
                ratio,
                "times",
                at_most(bound),
                _raw(most),
                f"{most.median:.0f} ns",
            )
        )
        run.say(f"row 3: {for_row:,} {what}: {most.median:+.1f} ns, {ratio:.2f} times row 2")
        _grow(run, f"answer, {what}", vary, make, sizes[:-1], [(for_row, most)])
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


def _raw(cost: Cost) -> dict[str, list[float]]:
    return {"over, ns": cost.over, "bare, ns": cost.bare}


def _over(cost: Cost) -> str:
    return f"over {middle(cost.bare):.0f} ns of the bare program"
