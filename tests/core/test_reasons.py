# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a solicitation has its outcome: the sentences that `explain`, `replay` and `trace` share."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from npd6_xdp.core.asked import Asked, vlan_ids
from npd6_xdp.core.build import build
from npd6_xdp.core.config import Datapath
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.described import EntryFacts, RuleFacts
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.reasons import DAD_IGNORED, INVALID, REFUSED, Decided, why
from npd6_xdp.core.table import Decision
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason
from tests.frames import FOREIGN_MAC, SETTING, TAGS_QINQ, ip6
from tests.kinds import KINDS, Kind, Wanted, nonce, oversized, sllao, solicit

UNSPECIFIED = bytes(16)
ENTRY = EntryFacts(
    "wan0", "wan0", "untagged", frozenset({SETTING.mac}), True, False, Datapath.HYBRID, False, "192.0.2.1 isn't here"
)
STATIC = RuleFacts("2001:db8:1::/64", Method.STATIC, ())
ROUTE = RuleFacts("2001:db8:1::/64", Method.ROUTE, ())
BEHIND = RuleFacts("2001:db8:1::/64", Method.NEIGHBOUR, ("lan0", "lan1"))
KERNEL = RuleFacts("2001:db8:1::/64", Method.KERNEL, ())
FRAME = solicit(SETTING)
PROBE = solicit(SETTING, source=UNSPECIFIED, options=b"")


def decided(outcome: Outcome, frame: bytes = FRAME, **known: object) -> Decided:
    return Decided(outcome, Asked.of(frame), known.pop("entry", ENTRY), **known)  # type: ignore[arg-type]


SENTENCES: tuple[tuple[Decided, str], ...] = (
    (decided(Outcome.ANSWERED_XDP, rule=STATIC, decision=Decision.STATIC), "present, by method static"),
    (
        decided(Outcome.ANSWERED_PYTHON, PROBE, rule=STATIC, decision=Decision.STATIC),
        "a DAD probe to be defended; present, by method static",
    ),
    (
        decided(Outcome.ANSWERED_XDP, rule=ROUTE, decision=Decision.STATIC),
        "this host holds the address on another interface",
    ),
    (decided(Outcome.ANSWERED_XDP, rule=ROUTE, decision=Decision.ROUTE), "there is a route to it"),
    (
        decided(Outcome.ANSWERED_XDP, rule=BEHIND, decision=Decision.NEIGHBOUR),
        "the neighbour table has it behind lan0 or lan1",
    ),
    (
        decided(Outcome.ANSWERED_PYTHON, rule=KERNEL, decision=Decision.KERNEL),
        "the first time; the kernel's proxy entry answers from then on, if it has got one",
    ),
    (
        decided(Outcome.ANSWERED_XDP, rule=KERNEL, decision=Decision.STATIC, entry=ENTRY._replace(is_seen=False)),
        "there is no VLAN device for such frames, so the kernel can't, and npd6-xdp does",
    ),
    (
        decided(Outcome.ANSWERED_XDP, rule=KERNEL, decision=Decision.STATIC),
        "this host holds the address on another interface",
    ),
    (decided(Outcome.KERNEL, rule=KERNEL, decision=Decision.KERNEL), "the kernel's proxy entry for it answers"),
    (
        decided(Outcome.ABSENT, rule=ROUTE, decision=Decision.ROUTE),
        "no route to it out of another interface",
    ),
    (
        decided(Outcome.ABSENT, rule=ROUTE._replace(via=("lan0",)), decision=Decision.ROUTE),
        "no route to it out of lan0",
    ),
    (
        decided(Outcome.ABSENT, rule=BEHIND._replace(has_via=False), decision=Decision.NEIGHBOUR),
        "there is no lan0 or lan1 on this machine",
    ),
    (
        decided(Outcome.ABSENT, rule=BEHIND, decision=Decision.NEIGHBOUR),
        "it is not behind lan0 or lan1, but on the asker's link, or another proxy has asked for it",
    ),
    (
        decided(Outcome.PENDING, rule=BEHIND, decision=Decision.NEIGHBOUR),
        "the neighbour table doesn't have it behind lan0 or lan1; the kernel asks, and nobody has answered yet",
    ),
    (
        decided(Outcome.PENDING, rule=BEHIND, decision=Decision.NEIGHBOUR, entry=ENTRY._replace(shared=True)),
        "the neighbour table doesn't have it behind lan0 or lan1; the kernel asks, and nobody has answered yet,"
        " and it goes on to the others"
        " behind wan0",
    ),
    (
        decided(Outcome.PENDING, PROBE, rule=BEHIND, decision=Decision.NEIGHBOUR),
        "a DAD probe to be defended; the kernel asks whether it is still there behind lan0 or lan1",
    ),
    (
        decided(Outcome.ANSWERED_PYTHON, rule=BEHIND, decision=Decision.NEIGHBOUR, late=True),
        "it was pending, and has been found behind lan0 or lan1",
    ),
    (decided(Outcome.OWN, decision=Decision.OWN), "wan0 holds this address itself; the kernel answers"),
    (
        decided(Outcome.IGNORED, decision=Decision.NEXT_HOP),
        "it is a next hop of a route out of wan0; never impersonated",
    ),
    (
        decided(Outcome.IGNORED, rule=STATIC, decision=Decision.IGNORE),
        "its include and exclude leave it out",
    ),
    (
        decided(Outcome.IGNORED, rule=RuleFacts("::/0", Method.IGNORE, ()), decision=Decision.IGNORE),
        "the rule says so",
    ),
    (
        decided(Outcome.IGNORED, solicit(SETTING, target=ip6("fe80::7"))),
        "such a target is never answered, unless a rule names exactly this address",
    ),
    (decided(Outcome.IGNORED, solicit(SETTING, target=UNSPECIFIED)), "such a target is never answered"),
    (
        decided(Outcome.IGNORED, FOREIGN_MAC + FRAME[6:]),
        f"it went to {FOREIGN_MAC.hex(':')}, which isn't wan0's MAC address",
    ),
    (decided(Outcome.IGNORED, FRAME[:6] + SETTING.mac + FRAME[12:]), "it comes from wan0's own MAC address"),
    (
        decided(Outcome.IGNORED, solicit(SETTING, options=b"", eth_source=bytes(6))),
        "its answer would go to a multicast or zero MAC address",
    ),
    (decided(Outcome.UNMATCHED), "no rule covers it"),
    (
        decided(Outcome.UNMATCHED, solicit(replace(SETTING, tags=TAGS_QINQ)), entry=ENTRY._replace(spoken=False)),
        "no [[interface]] entry matches VLAN 100.7 of wan0",
    ),
    (decided(Outcome.UNMATCHED, oversized(SETTING)), "it is longer than 4,096 bytes"),
    (decided(Outcome.UNMATCHED, oversized(SETTING)[:256]), "it is longer than 4,096 bytes"),
    (decided(Outcome.DAD, PROBE, rule=STATIC, decision=Decision.STATIC), DAD_IGNORED),
    (
        decided(
            Outcome.MONITORED, rule=STATIC, decision=Decision.STATIC, entry=ENTRY._replace(datapath=Datapath.MONITOR)
        ),
        'it would be answered or resolved, but for datapath = "monitor"',
    ),
    (
        decided(Outcome.MONITORED, rule=STATIC, decision=Decision.STATIC),
        "a VLAN tag stood beside the frame, so that it may be another VLAN's (see the log)",
    ),
    (
        decided(Outcome.STANDBY, rule=STATIC, decision=Decision.STATIC),
        "it would be answered or resolved, but 192.0.2.1 isn't here",
    ),
    (decided(Outcome.LOST, rule=STATIC, decision=Decision.STATIC), "the ring to Python was full"),
    (
        decided(Outcome.FAILED, rule=STATIC, decision=Decision.STATIC),
        "its advertisement couldn't be sent out of wan0",
    ),
    *((decided(Outcome.INVALID, reason=reason), INVALID[reason]) for reason in Reason),
    *((decided(Outcome.RATE_LIMITED, rule=STATIC, limit=limit), REFUSED[limit]) for limit in Limit),
)


@pytest.mark.parametrize(("known", "sentence"), SENTENCES, ids=[f"{known.outcome}" for known, _ in SENTENCES])
def test_each_outcome_has_the_sentence_that_says_why(known: Decided, sentence: str) -> None:
    assert why(known) == sentence


def test_each_outcome_reason_and_limit_has_a_sentence() -> None:
    assert {known.outcome for known, _ in SENTENCES} == {*Outcome}
    assert INVALID.keys() == {*Reason}
    assert REFUSED.keys() == {*Limit}
    assert len({*INVALID.values(), *REFUSED.values()}) == len(Reason) + len(Limit)


def test_each_limit_names_its_key_as_the_operators_table_does() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/operation.md").read_text()
    rows = page.partition("### Which limit\n")[2].partition("\n## ")[0]
    for limit, key in {
        Limit.SOURCE: "events_per_source",
        Limit.ALL: "limits.events_per_second",
        Limit.PENDING: "limits.pending",
        Limit.CROWDED: "limits.pending",
        Limit.FULL: "limits.neighbours",
        Limit.NEW_TARGET: "new_targets_per_second",
    }.items():
        assert key in REFUSED[limit]
        assert key in rows


def test_what_is_known_of_less_still_has_a_sentence() -> None:
    """A rule or an entry that is gone by the time it is asked about, and a frame that is cut off."""
    gone = EntryFacts("wan0", "wan0", "", frozenset(), True, False, Datapath.HYBRID, False, "it was on standby")
    for outcome in Outcome:
        for decision in (None, *Decision):
            for frame in (FRAME[:60], FRAME):
                assert why(decided(outcome, frame, decision=decision, entry=gone))
    assert why(decided(Outcome.IGNORED, FOREIGN_MAC + FRAME[6:], entry=gone)) == "such a target is never answered"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("outcome", [Outcome.ANSWERED_PYTHON, Outcome.PENDING, Outcome.ABSENT])
@pytest.mark.parametrize("frame", [FRAME, PROBE], ids=["", "DAD"])
def test_a_sentence_has_no_hole_where_the_rule_is_not_known_any_more(
    outcome: Outcome, late: bool, frame: bytes
) -> None:
    said = why(decided(outcome, frame, decision=Decision.NEIGHBOUR, late=late))
    assert "behind ;" not in f"{said};"
    assert "behind ," not in said
    assert said == said.strip()


def test_entries_and_rules_are_the_same_behind_json() -> None:
    text = """
[[interface]]
name = "wan0"
vlan = "100.7"
datapath = "python"
active_with = "192.0.2.1"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "neighbour"
via = ["lan0", "br-*"]
"""
    table = build(parse(text, "test"), {"wan0": LinkFacts("wan0", 7, SETTING.mac)}, held=frozenset())
    entries = [EntryFacts.of(entry, is_seen=False) for entry in table.entries.values()]
    rules = [RuleFacts.of(rule, has_via=False) for rule in table.rules.values()]
    assert [EntryFacts.parse(json.loads(json.dumps(each.as_json()))) for each in entries] == entries
    assert [RuleFacts.parse(json.loads(json.dumps(each.as_json()))) for each in rules] == rules
    (entry,) = (each for each in entries if each.spoken)
    assert (entry.label, entry.vlan, entry.standby, entry.datapath) == ("wan0:100.7", "100.7", True, Datapath.PYTHON)
    assert entry.why_standby == "192.0.2.1 isn't on this machine"


# --- what a frame says ---


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_addresses_are_read_out_of_frames_that_are_invalid_too(kind: Kind) -> None:
    frame = kind.build(SETTING)
    asked = Asked.of(frame)
    assert (asked.eth_destination, asked.eth_source) == (frame[:6], frame[6:12])
    if kind.wanted is Wanted.UNSEEN:
        return
    assert asked.source is not None
    if kind.wanted is not Reason.LENGTH:
        at = frame.index(b"\x87", 54)
        assert asked.target == frame[at + 8 : at + 24]


def test_no_frame_is_too_short_to_be_read() -> None:
    for size in range(len(FRAME) + 1):
        asked = Asked.of(FRAME[:size])
        assert asked.target in (None, SETTING.target)
    assert asked.target == SETTING.target


def test_an_answer_goes_where_the_first_usable_option_says_or_where_the_frame_comes_from() -> None:
    assert Asked.of(solicit(SETTING, options=nonce())).answer_mac == SETTING.asker_mac
    assert Asked.of(solicit(SETTING, options=sllao(FOREIGN_MAC))).answer_mac == FOREIGN_MAC


@pytest.mark.parametrize(
    ("tags", "ids"),
    [
        ("", ()),
        ("81000064", (100,)),
        ("88a8006481000007", (100, 7)),
        ("81000000", ()),
        ("8100000081000007", (7,)),
        ("8100006481000000", (100,)),
        ("8100e0008100e000", ()),
    ],
)
def test_a_tag_without_a_vlan_id_is_none(tags: str, ids: tuple[int, ...]) -> None:
    assert vlan_ids(FRAME[:12] + bytes.fromhex(tags) + FRAME[12:]) == ids
    assert IPv6Address(Asked.of(FRAME[:12] + bytes.fromhex(tags) + FRAME[12:]).target or b"") == IPv6Address(
        SETTING.target
    )
