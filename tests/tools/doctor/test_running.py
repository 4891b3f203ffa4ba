# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon has counted or found, as doctor tells it; and filters that can't be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.tools.doctor import firewall, running
from npd6_xdp.tools.doctor.facts import Facts, Firewall, Unit
from npd6_xdp.tools.doctor.finding import Finding, Level
from tests.tools.doctor.test_checks import facts


def status(**row: Any) -> Facts:
    """A daemon that is well, but for what its row of wan0 says."""
    its = facts()
    well = {
        "interface": "wan0",
        "port": "wan0",
        "attach": "native",
        "attach_reason": "",
        "up": True,
        "active": True,
        "role": "",
        "lost": 0,
        "solicitations": {"rate_limited": 0, "unmatched": 0},
        "rate_limited": {},
        "xdp_tx_errors": None,
        "advertisements": {"xdp": 0, "python": 0},
    }
    said = {
        "build": {"version": "0.1.0"},
        "headline": "working",
        "pid": 7,
        "configuration": str(its.path),
        "reload_error": "",
        "last_reload": 1.0,
        "refused": {"neighbours": 0, "kernel proxy entries": 0},
        "warnings": [],
        "interfaces": [{**well, **row}],
        "rules": [],
    }
    return replace(its, status=said)


def grave(its: Facts) -> list[Finding]:
    return [each for each in (*running.file_checks(its), *running.checks(its)) if each.level is not Level.OK]


@pytest.mark.parametrize(
    ("row", "check", "level", "words"),
    [
        ({"attach": ""}, "attached", Level.FAIL, "isn't on it"),
        ({"up": False}, "attached", Level.FAIL, "silent"),
        ({"attach": "generic"}, "attached", Level.NOTE, "generic mode"),
        ({"active": False, "role": "on standby: elsewhere"}, "standby", Level.NOTE, "on standby: elsewhere"),
        ({"lost": 3}, "lost", Level.WARN, "3 solicitations"),
        ({"xdp_tx_errors": 5}, "lost", Level.WARN, 'dropped 5 advertisements (xdp_tx_errors): attach = "generic"'),
        (
            {"solicitations": {"rate_limited": 4}, "rate_limited": {"source": 4, "all": 0}},
            "rate_limited",
            Level.NOTE,
            "(source 4): `npd6-xdp trace --outcome rate_limited --control ",
        ),
    ],
)
def test_a_row_of_status(row: dict[str, Any], check: str, level: Level, words: str) -> None:
    assert grave(status()) == []
    (found,) = grave(status(**row))
    assert (found.check, found.level) == (check, level)
    assert words in found.message
    if check == "attached" and level is Level.FAIL:
        assert found.mend == (STATUS,)


STATUS = "npd6-xdp status --control /etc/x.toml"


def test_a_daemon_that_is_not_well_comes_with_the_command_that_says_why() -> None:
    its = status()
    assert its.status is not None
    (found,) = grave(replace(its, status={**its.status, "headline": "not answering"}))
    assert (found.check, found.level, found.mend) == ("daemon", Level.NOTE, (STATUS,))


def test_what_the_driver_dropped_is_no_more_than_a_note_once_the_kernel_sends() -> None:
    first, second = grave(status(xdp_tx_errors=5, attach="generic"))
    assert (first.check, second.check, second.level) == ("attached", "lost", Level.NOTE)
    assert second.message.endswith("and none any more: the program is in generic mode now")


def test_what_was_refused_is_no_more_than_a_note_once_there_is_space() -> None:
    its = status()
    assert its.status is not None
    (found,) = grave(replace(its, status={**its.status, "refused": {"neighbours": 3}, "neighbours": [{}] * 5}))
    assert (found.check, found.level) == ("refused", Level.NOTE)
    assert "3 neighbours were refused" in found.message
    assert "there is space now: 5 of limits.neighbours (65536) are there" in found.message


OF_THE_UNIT = Unit({"LoadState": "loaded", "ActiveState": "active"})
BY_OTHER_MEANS = Unit({"LoadState": "loaded", "ActiveState": "inactive"})


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        (OF_THE_UNIT, "its log (`journalctl -u npd6-xdp -n 20`) "),
        (BY_OTHER_MEANS, "its log (the stderr that it was started with) "),
    ],
)
def test_what_only_the_log_tells_is_said_with_where_that_is(unit: Unit, words: str) -> None:
    refused = status()
    assert refused.status is not None
    refused = replace(refused, status={**refused.status, "refused": {"neighbours": 1}})
    for its in (status(attach=""), refused, replace(facts(), is_silent=True, no_daemon="not a word")):
        (found,) = grave(replace(its, unit=unit))
        assert words in found.message


def test_how_it_is_attached_is_said_of_a_port_at_tc() -> None:
    assert "wan0: attached at tc ingress" in [each.message for each in running.checks(status(attach="tc"))]
    of_auto = status(attach="tc", attach_reason="the driver refuses it")
    assert "wan0: attached at tc ingress (the driver refuses it)" in [each.message for each in running.checks(of_auto)]


def test_another_file_than_the_one_in_use_is_told() -> None:
    (found,) = grave(replace(status(), path=Path("/etc/y.toml")))
    assert (found.check, found.level) == ("file", Level.WARN)
    assert "/etc/x.toml, and not /etc/y.toml" in found.message
    assert found.mend == ("npd6-xdp doctor --config /etc/x.toml",)


@pytest.mark.parametrize(("state", "mend"), [("loaded", ("systemctl restart npd6-xdp",)), ("not-found", ())])
def test_a_daemon_that_says_nothing_is_started_anew_by_its_unit_if_it_has_one(
    state: str, mend: tuple[str, ...]
) -> None:
    its = replace(facts(), is_silent=True, no_daemon="not a word", unit=Unit({"LoadState": state}))
    (found,) = running.checks(its)
    assert (found.level, found.mend) == (Level.WARN, mend)


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        ("nftables has tables, which can't be read: nft isn't installed", ("apt-get install nftables",)),
        (
            "ip6tables has the tables filter, which can't be read: ip6tables-save isn't installed",
            ("apt-get install iptables",),
        ),
        ("nftables: only root may see its tables", ()),
    ],
)
def test_a_filter_that_cant_be_read_is_told_with_what_reads_it(line: str, mend: tuple[str, ...]) -> None:
    (found,) = firewall.checks(replace(facts(), firewall=Firewall((), (line,))))
    assert (found.level, found.mend) == (Level.NOTE, mend)


def test_the_daemons_own_judgement_is_told_and_each_problem_that_has_no_check_of_its_own() -> None:
    problems = [
        {"kind": "forwarding", "text": "wan0: forwarding is off"},
        {"kind": "reload", "text": "the last reload failed"},
    ]
    its = status()
    assert its.status is not None
    its = replace(its, status={**its.status, "headline": "degraded: 2 problems", "problems": problems})
    assert [(each.check, each.level, each.message) for each in grave(its)] == [
        ("daemon", Level.NOTE, "npd6-xdp 0.1.0 runs, pid 7: degraded: 2 problems"),
        ("warning", Level.WARN, "the daemon warns: wan0: forwarding is off"),
    ]


@pytest.mark.parametrize(
    ("counts", "late", "told"),
    [
        ({"pending": 40, "absent": 10}, 0, True),
        ({"pending": 40, "absent": 9}, 0, False),
        ({"pending": 4000, "answered_xdp": 1}, 0, False),
        ({"pending": 4000}, 1, False),
        ({"ignored": 4000, "standby": 4000, "dad": 60}, 0, False),
    ],
)
def test_a_rule_under_which_nothing_is_answered_is_noted_which_others_that_answer_dont_hide(
    counts: dict[str, int], late: int, told: bool
) -> None:
    its = status(advertisements={"xdp": 9, "python": late})
    assert its.status is not None
    rules = [
        {"interface": "wan0", "rule": "2001:db8:1::/64", "method": "static", "solicitations": {"answered_xdp": 9}},
        {"interface": "wan0", "rule": "2001:db8:2::/64", "method": "neighbour", "solicitations": counts},
    ]
    found = [each for each in grave(replace(its, status={**its.status, "rules": rules})) if each.check == "unanswered"]
    assert [each.level for each in found] == [Level.NOTE] * told
    for each in found:
        assert (
            "nothing was answered under wan0 2001:db8:2::/64 (50 solicitations): `npd6-xdp trace --rule" in each.message
        )
