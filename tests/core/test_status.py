# SPDX-License-Identifier: GPL-2.0-or-later
"""What `status` says, as JSON and as text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.core.judgement import WORKING, Judgement, Problem, ProblemKind, State
from npd6_xdp.core.snapshot import (
    ANSWER_BUCKETS,
    MOST_RULES_WITH_ZEROS,
    RULE_OUTCOMES,
    AnswerTimes,
    Details,
    HostSnapshot,
    InterfaceSnapshot,
    RuleSnapshot,
    Snapshot,
    Status,
    TargetSnapshot,
)
from npd6_xdp.core.status import status_json, status_text
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason

ASKED = (Outcome.ANSWERED_XDP, IPv6Address("2001:db8::1"), "02:00:00:00:00:01")
WAN = InterfaceSnapshot(
    "wan0",
    "wan0",
    "native",
    "hybrid",
    True,
    {Outcome.ANSWERED_XDP: 7, Outcome.INVALID: 3, Outcome.LOST: 2},
    {Reason.HOP_LIMIT: 3},
    {"xdp": 7, "python": 1},
    {Limit.SOURCE: 0, Limit.ALL: 4},
)
TAGGED = InterfaceSnapshot("lan0:100", "lan0", "", "monitor", False, {}, {}, {})
SNAPSHOT = Snapshot(
    [WAN, TAGGED],
    [
        RuleSnapshot("wan0", "2001:db8:1::/64", Method.STATIC, {Outcome.ANSWERED_XDP: 7}),
        RuleSnapshot("wan0", "interface:lan0", Method.NEIGHBOUR, {Outcome.PENDING: 1}),
        RuleSnapshot("lan0:100", "::/0", Method.IGNORE, {Outcome.IGNORED: 4}),
    ],
    {"lan0": 1},
    {"wan0": 1},
    AnswerTimes(),
    1_700_000_100.0,
    2,
    {"version": "1.0", "bcc": "0.26", "kernel": "6.1"},
    1_700_000_200.0,
    tx_errors={"wan0": 9},
    judgement=Judgement(
        State.DEGRADED,
        [
            Problem(ProblemKind.DOWN, "lan0 is down: nothing is answered there"),
            Problem(ProblemKind.RELOAD, "the last reload failed; the configuration before it is in use"),
        ],
    ),
)
STATUS = Status(
    SNAPSHOT,
    1,
    1,
    {"neighbours": 0, "kernel proxy entries": 5},
    "npd6.toml:1:1: interface[0].name: missing\nnpd6.toml:7:1: interface[1]: no rule",
    ["wan1: no such interface; waiting for it"],
    1_700_000_000.0,
    4711,
    Details(
        "/etc/npd6-xdp/npd6-xdp.toml",
        [HostSnapshot("lan0", IPv6Address("2001:db8:2::1"), "REACHABLE")],
        [IPv6Address("2001:db8:2::2")],
        [HostSnapshot("wan0", IPv6Address("2001:db8:3::1"))],
        [HostSnapshot("lan0", IPv6Address("2001:db8:2::1"))],
        [HostSnapshot("lan0", IPv6Address("2001:db8:2::7"))],
        [TargetSnapshot("wan0", IPv6Address("2001:db8:1::42"), 1_700_000_000.5, 1_700_000_001.5, 12, *ASKED)],
    ),
    host="edge1",
    namespace="blue",
)
QUIET = replace(
    STATUS,
    snapshot=replace(
        SNAPSHOT,
        interfaces=[replace(WAN, outcomes={}, reasons={}, advertisements={}, limits={})],
        rules=[],
        tx_errors={},
        judgement=WORKING,
    ),
    pending=0,
    host_routes=0,
    refused={"neighbours": 0},
    reload_error="",
    warnings=[],
    details=Details(STATUS.details.file),
)


TARGET = {
    "interface": "wan0",
    "target": "2001:db8:1::42",
    "outcome": "answered_xdp",
    "source": "2001:db8::1",
    "source_mac": "02:00:00:00:00:01",
    "first": 1_700_000_000.5,
    "last": 1_700_000_001.5,
    "count": 12,
}


def detailed(status: Status, **changes: Any) -> Status:
    """The same with other details."""
    return replace(status, details=replace(status.details, **changes))


def test_the_json_is_plain_values_that_survive_the_wire() -> None:
    said = status_json(STATUS)
    assert json.loads(json.dumps(said)) == said
    assert json.loads(json.dumps(status_json(QUIET))) == status_json(QUIET)


def test_why_it_is_not_native_is_said_beside_how_it_is_attached() -> None:
    why = "the driver refuses an XDP program in native mode: Operation not supported"
    at_tc = replace(WAN, attach="tc", attach_reason=why)
    said = status_json(replace(STATUS, snapshot=replace(SNAPSHOT, interfaces=[at_tc, TAGGED])))
    assert [row["attach_reason"] for row in said["interfaces"]] == [why, ""]
    lines = status_text(said).splitlines()
    assert lines[lines.index("wan0: attached at tc ingress, datapath hybrid, up") + 1] == f"  not native: {why}"
    assert "not native" not in status_text(status_json(STATUS))


def test_the_json_has_all_that_the_daemon_knows() -> None:
    said = status_json(STATUS)
    wan, tagged = said["interfaces"]
    assert wan["solicitations"] == {str(o): {"answered_xdp": 7, "invalid": 3, "lost": 2}.get(o, 0) for o in Outcome}
    assert {key: wan[key] for key in wan if key != "solicitations"} == {
        "interface": "wan0",
        "port": "wan0",
        "attach": "native",
        "attach_reason": "",
        "datapath": "hybrid",
        "up": True,
        "active_with": "",
        "active": True,
        "role": "",
        "announcements": 0,
        "invalid": {"hop_limit": 3},
        "rate_limited": {"source": 0, "all": 4},
        "advertisements": {"xdp": 7, "python": 1},
        "lost": 2,
        "xdp_tx_errors": 9,
    }
    assert (tagged["interface"], tagged["port"], tagged["xdp_tx_errors"]) == ("lan0:100", "lan0", None)
    for rule, method in zip(said["rules"], (Method.STATIC, Method.NEIGHBOUR, Method.IGNORE), strict=True):
        assert rule["method"] == method
        assert set(rule["solicitations"]) == {*map(str, RULE_OUTCOMES[method]), "ignored"}
    assert said["rules"][1]["solicitations"]["pending"] == 1
    rest = {key: value for key, value in said.items() if key not in ("interfaces", "rules")}
    assert rest == {
        "state": "degraded",
        "headline": "degraded: 2 problems",
        "problems": [
            {"kind": "down", "text": "lan0 is down: nothing is answered there"},
            {"kind": "reload", "text": "the last reload failed; the configuration before it is in use"},
        ],
        "host": "edge1",
        "namespace": "blue",
        "time": 1_700_000_200.0,
        "build": {"version": "1.0", "bcc": "0.26", "kernel": "6.1"},
        "pid": 4711,
        "configuration": "/etc/npd6-xdp/npd6-xdp.toml",
        "started": 1_700_000_000.0,
        "last_reload": 1_700_000_100.0,
        "reload_failures": 2,
        "reload_error": STATUS.reload_error,
        "warnings": ["wan1: no such interface; waiting for it"],
        "neighbours": [{"interface": "lan0", "address": "2001:db8:2::1", "state": "REACHABLE"}],
        "pending": ["2001:db8:2::2"],
        "pending_room": None,
        "host_routes": [{"interface": "lan0", "address": "2001:db8:2::1"}],
        "host_routes_missing": [{"interface": "lan0", "address": "2001:db8:2::7"}],
        "kernel_proxy_entries": [{"interface": "wan0", "address": "2001:db8:3::1"}],
        "vias": {},
        "refused": {"neighbours": 0, "kernel proxy entries": 5},
        "targets": [TARGET],
    }


def over_the_wire(status: Status) -> Any:
    return json.loads(json.dumps(status_json(status)))


def at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def test_the_text_has_a_block_for_each_interface_and_each_list() -> None:
    assert status_text(over_the_wire(STATUS)).splitlines() == [
        "degraded: 2 problems",
        "  lan0 is down: nothing is answered there",
        "  the last reload failed; the configuration before it is in use:",
        "    npd6.toml:1:1: interface[0].name: missing",
        "    npd6.toml:7:1: interface[1]: no rule",
        f"npd6-xdp 1.0, pid 4711, up since {at(1_700_000_000)}; bcc 0.26, Linux 6.1",
        f"configuration: /etc/npd6-xdp/npd6-xdp.toml, in use since {at(1_700_000_100)}; reloads that failed: 2",
        "",
        "wan0: XDP attached (native mode), datapath hybrid, up",
        "  solicitations: answered_xdp 7, invalid 3, lost 2",
        "  invalid: hop_limit 3",
        "  rate_limited: all 4",
        "  advertisements: xdp 7, python 1 (1 after resolution)",
        "  the driver dropped 9 of those by XDP (xdp_tx_errors)",
        "  rule 2001:db8:1::/64 static: answered_xdp 7",
        "  rule interface:lan0 neighbour: pending 1",
        "",
        "lan0:100: not attached, datapath monitor, down",
        "  solicitations: none",
        "  advertisements: none",
        "  rule ::/0 ignore: ignored 4",
        "",
        "neighbours: 1",
        "  2001:db8:2::1 dev lan0 REACHABLE",
        "",
        "pending: 1 being resolved",
        "  2001:db8:2::2",
        "",
        "host routes: 1",
        "  2001:db8:2::1 dev lan0",
        "",
        "host routes missing: 1",
        "  2001:db8:2::7 dev lan0",
        "",
        "kernel proxy entries: 1",
        "  2001:db8:3::1 dev wan0",
        "",
        "refused, no space left: 5 kernel proxy entries",
        "",
        "recent targets: 1",
        f"  2001:db8:1::42 on wan0: 12 times, first {at(1_700_000_000)}, last {at(1_700_000_001)} by 2001:db8::1"
        " (02:00:00:00:00:01): answered_xdp",
    ]


def test_a_glob_of_via_is_shown_with_the_interfaces_that_it_means_now() -> None:
    vias = {"br-*": ["br-a1b2", "br-c3d4"], "tap*": [], "veth*": [f"veth{number:02}" for number in range(25)]}
    said = status_json(detailed(QUIET, vias=vias))
    assert said["vias"] == vias
    text = status_text(json.loads(json.dumps(said)))
    assert "\nvia globs: 3\n  br-*: br-a1b2, br-c3d4\n  tap*: none here\n  veth*: veth00, " in text
    assert text.endswith("veth18, veth19 and 5 more")


def test_a_target_that_was_asked_for_once_is_said_so() -> None:
    target = TargetSnapshot("wan0", IPv6Address("2001:db8:1::42"), 1_700_000_000.5, 1_700_000_000.5, 1, *ASKED)
    said = status_text(status_json(detailed(QUIET, targets=[target])))
    assert "  2001:db8:1::42 on wan0: once, first " in said


def test_of_what_there_is_nothing_the_text_says_nothing() -> None:
    assert status_text(over_the_wire(QUIET)).splitlines()[:1] == ["working"]
    assert status_text(over_the_wire(QUIET)).splitlines()[3:] == [
        "",
        "wan0: XDP attached (native mode), datapath hybrid, up",
        "  solicitations: none",
        "  advertisements: none",
    ]


@pytest.mark.parametrize(
    ("count", "shown", "more"),
    [(20, 20, 0), (21, 20, 1), pytest.param(65_536, 20, 65_516, marks=pytest.mark.large)],
)
def test_long_lists_are_cut_and_say_how_much_is_missing(count: int, shown: int, more: int) -> None:
    hosts = [HostSnapshot("lan0", IPv6Address(number)) for number in range(1, count + 1)]
    rules = [RuleSnapshot("wan0", f"rule {number}", Method.STATIC, {}) for number in range(count)]
    status = replace(detailed(QUIET, hosts=hosts), snapshot=replace(QUIET.snapshot, rules=rules))
    assert len(status_json(status)["neighbours"]) == count
    text = status_text(status_json(status))
    assert f"\nneighbours: {count}\n" in text
    assert len(re.findall("dev lan0", text)) == len(re.findall(r"^  rule ", text, re.MULTILINE)) == shown
    assert re.findall(r"… and (\d+) more", text) == [str(more)] * 2 * bool(more)


@pytest.mark.parametrize(("count", "zeros"), [(MOST_RULES_WITH_ZEROS, True), (MOST_RULES_WITH_ZEROS + 1, False)])
def test_of_many_rules_only_what_happened_is_said(count: int, zeros: bool) -> None:
    counted = {Outcome.ANSWERED_XDP: 7, Outcome.ABSENT: 0}
    rules = [RuleSnapshot("wan0", f"rule {number}", Method.ROUTE, {} if number else counted) for number in range(count)]
    snapshot = replace(QUIET.snapshot, rules=rules)
    said = status_json(replace(QUIET, snapshot=snapshot))["rules"]
    assert len(said) == count
    everything = dict.fromkeys(map(str, (*RULE_OUTCOMES[Method.ROUTE], Outcome.IGNORED)), 0)
    happened = {"answered_xdp": 7}
    assert said[0]["solicitations"] == (everything | happened if zeros else happened)
    assert said[1]["solicitations"] == (everything if zeros else {})
    assert dict(snapshot.rule_outcomes(rules[0])) == said[0]["solicitations"]


def test_answer_times_fall_into_the_bucket_whose_upper_bound_holds_them() -> None:
    times = AnswerTimes()
    times.observe_all([1_500_000, 10, 1_000_000, 11, 0])
    assert len(times.counts) == len(ANSWER_BUCKETS) + 1
    assert (times.counts[0], times.counts[1], times.counts[-2], times.counts[-1]) == (2, 1, 1, 1)
    assert times.total == pytest.approx(2.500021)
    assert list(ANSWER_BUCKETS) == sorted(ANSWER_BUCKETS)


@given(st.lists(st.lists(st.integers(0, 2_000_000))))
def test_answer_times_counted_together_are_those_counted_one_by_one(batches: list[list[int]]) -> None:
    together, singly = AnswerTimes(), AnswerTimes()
    for batch in batches:
        together.observe_all(list(batch))
        for each in batch:
            singly.observe(each)
    assert together.counts == singly.counts
    assert together.total == pytest.approx(singly.total)


def test_what_was_sent_for_resolution_is_told_from_what_is_being_resolved() -> None:
    """The one counts up, the other is how many there are now."""
    resolving = replace(WAN, outcomes={Outcome.PENDING: 637, Outcome.ANSWERED_PYTHON: 2})
    status = detailed(STATUS, pending=[IPv6Address(number) for number in range(1, 67)])
    said = status_text(status_json(replace(status, snapshot=replace(SNAPSHOT, interfaces=[resolving]))))
    assert "  solicitations: answered_python 2, pending 637 (sent for resolution)\n" in said
    assert "  advertisements: xdp 7, python 1\n" in said, "of what was answered at once there is more than was counted"
    assert "\npending: 66 being resolved\n" in said


def test_how_many_targets_are_resolved_at_once_is_said_where_that_is_fewer_than_the_file_says() -> None:
    for capacity, shown in (((240, 512), True), ((512, 512), False), (None, False)):
        said = status_json(detailed(STATUS, capacity=capacity))
        assert said["pending_room"] == ({"targets": capacity[0], "limit": capacity[1]} if capacity else None)
        assert ("at most 240 targets are resolved at once: the kernel's neighbour table" in status_text(said)) == shown
