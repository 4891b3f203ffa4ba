# SPDX-License-Identifier: GPL-2.0-or-later
"""One truth: what the table says of a target, what `explain` says, and what the program does, for random files."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, Datapath
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import ConfigError
from npd6_xdp.core.event import EventFlag
from npd6_xdp.core.explain import Question, explain
from npd6_xdp.core.links import LinkFacts, OwnAddress
from npd6_xdp.core.table import Decision, Match, Table
from npd6_xdp.core.verdict import Method, Outcome
from tests.datapath.harness import IFINDEX, PORT, Bench, link
from tests.frames import SETTING, ip6, solicited_node
from tests.kinds import solicit

NETWORKS = {
    "2001:db8::/32": ["::1:0:0:0:4", "2001:db8:1::/113", "2001:db8:1::5-2001:db8:1::1:2"],
    "2001:db8:1::/64": ["::3", "::4-::9", "::10/124", "::ffff-::1:3", "2001:db8:1::b"],
    "2001:db8:1::/112": ["::3", "::4-::9", "::10/124", "::b-::15"],
    "2001:db8:1::8/125": ["::3", "::4-::6", "::6/127", "2001:db8:1::c"],
    "interface:lan0": ["::3", "::4-::9", "::10/124"],
}
OTHERS = [
    "2001:db8:1::3",
    "2001:db8:1::9",
    "2001:db8:1::2-2001:db8:1::b",
    "2001:db8:1::13-2001:db8:1::1:5",
    "2001:db8:2::-2001:db8:2::3",
]
TARGETS = [
    *(f"2001:db8:1::{number:x}" for number in range(0x22)),
    *(f"2001:db8:1::{number:x}" for number in (0x7FFF, 0x8000, 0xFFFE, 0xFFFF)),
    *(f"2001:db8:1::1:{number:x}" for number in range(8)),
    *(f"2001:db8:{net:x}::{number:x}" for net in (2, 3, 0x1234) for number in (0, 3, 4, 9, 0x10)),
    "2001:db9::1",
    "fe80::1",
    "fe80::3",
]
FRAMES = {
    target: solicit(replace(SETTING, target=ip6(target)), destination=solicited_node(ip6(target))) for target in TARGETS
}
LAN = LinkFacts(
    "lan0",
    77,
    bytes.fromhex("02000000000a"),
    addresses={(): (OwnAddress(IPv6Address("2001:db8:3::9"), 64), OwnAddress(IPv6Address("2001:db8:1::7"), 128))},
)

Seen = tuple[Outcome | EventFlag | None, int | None]
"""An outcome, or the tags of the event that went up; and the rule that it was counted or went up by, if any."""


@st.composite
def rules(draw: st.DrawFn) -> str:
    prefix = draw(st.sampled_from([*NETWORKS, *OTHERS]))
    method = draw(st.sampled_from(list(Method)))
    lines = ["[[interface.rule]]", f'prefix = "{prefix}"', f'method = "{method}"']
    if method is Method.NEIGHBOUR:
        lines.append('via = ["lan0"]')
    for key in ("include", "exclude") if prefix in NETWORKS else ():
        if chosen := draw(st.lists(st.sampled_from(NETWORKS[prefix]), max_size=2, unique=True)):
            lines.append(f"{key} = {chosen}")
    return "\n".join(lines)


def lookup(table: Table, target: str, datapath: Datapath) -> tuple[set[Outcome | EventFlag | None], int | None]:
    """What the table asks for: one of these, by that rule."""
    entry = table.entry_of(IFINDEX)
    assert entry is not None
    match = table.lookup(entry.id, IPv6Address(target))
    if not isinstance(match, Match):
        return {match}, None
    outcomes: dict[Datapath, Outcome | EventFlag] = {
        Datapath.HYBRID: Outcome.ANSWERED_XDP,
        Datapath.PYTHON: EventFlag(0),
        Datapath.MONITOR: Outcome.MONITORED,
    }
    answered = outcomes[datapath]
    missed = Outcome.MONITORED if datapath is Datapath.MONITOR else EventFlag.MISS
    found: dict[Decision, set[Outcome | EventFlag | None]] = {
        Decision.OWN: {Outcome.OWN},
        Decision.NEXT_HOP: {Outcome.IGNORED},
        Decision.IGNORE: {Outcome.IGNORED},
        Decision.STATIC: {answered},
        Decision.ROUTE: {answered, Outcome.ABSENT},  # as this machine's routes are
        Decision.NEIGHBOUR: {missed},
        Decision.KERNEL: {missed},
    }
    return found[match.decision], match.rule if match.rule in table.rules else None


def explained(config: Config, links: dict[str, LinkFacts], target: str) -> tuple[set[Outcome], str | None]:
    """The outcomes that `explain` allows for, where nothing is known yet, and the rule that it names."""
    source = IPv6Address(SETTING.asker_link_local)
    lines = explain(config, links, Question(PORT, (), IPv6Address(target), source)).splitlines()
    words = {key: value for key, _, value in (line.partition(": ") for line in lines)}
    outcomes = {Outcome(words["outcome"].split()[0])}
    for line in lines:
        if line.startswith("  ") and "; else " in line:
            outcomes.add(Outcome(line.rpartition("; else ")[2].split(",")[0]))
    return outcomes, words["rule"].split(" (")[0] if "rule" in words else None


def observed(bench: Bench, target: str) -> Seen:
    """What the program does."""
    before = {number: bench.ns_filter.rule_counters(number) for number in bench.table.rules}
    seen = bench.see(FRAMES[target])
    events = bench.events()
    if events:
        (event,) = events
        assert seen.counted == ()
        return EventFlag(event.flags), event.rule
    (outcome,) = seen.counted
    grown = [n for n, counts in before.items() if bench.ns_filter.rule_counters(n)[outcome] > counts[outcome]]
    assert len(grown) <= 1
    return outcome, grown[0] if grown else None


def test_the_table_what_explain_says_and_what_the_program_does_are_one(bench: Bench) -> None:
    met: set[object] = set()

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(rules(), min_size=1, max_size=5),
        st.sampled_from(list(Datapath)),
        st.lists(st.sampled_from(TARGETS[:20]), max_size=2, unique=True),
        st.lists(st.sampled_from(TARGETS[:20]), max_size=1),
    )
    def compare(chosen: list[str], datapath: Datapath, own: list[str], hops: list[str]) -> None:
        head = f'[[interface]]\nname = "{PORT}"\ndatapath = "{datapath}"\nevents_per_source = 0'
        try:
            config = parse("\n".join([head, *chosen]), "random")
        except ConfigError:
            assume(False)  # two rules for one prefix
        links = {PORT: link(own, hops), "lan0": LAN}
        bench.use(table := build(config, links))
        for target in TARGETS:
            found, rule = observed(bench, target)
            wanted, by = lookup(table, target, datapath)
            where = (target, *chosen)
            assert found in wanted, where
            assert rule == by, where
            outcomes, named = explained(config, links, target)
            if isinstance(found, EventFlag):
                missed = {Outcome.PENDING, Outcome.ANSWERED_PYTHON}  # by method neighbour, and by method kernel
                assert outcomes & (missed if found else {Outcome.ANSWERED_PYTHON}), where
            else:
                assert found in outcomes, where
            assert (rule is None) or named == table.rules[rule].prefix, where
            met.add(found)

    all_kinds = {EventFlag(0), EventFlag.MISS, Outcome.ANSWERED_XDP, Outcome.MONITORED, Outcome.OWN, Outcome.IGNORED}
    for _ in range(5):
        compare()
        if met >= all_kinds:  # nearly always at once
            break
    assert met >= all_kinds
