# SPDX-License-Identifier: GPL-2.0-or-later
"""How `trace` tells of a solicitation: lines, objects of JSON, and its summary."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from npd6_xdp.core.trace_told import Lines, as_json, summary_json, summary_text
from npd6_xdp.core.verdict import Outcome
from tests.core.told import advertisement, examples, told
from tests.frames import SETTING, TAGS_8021Q, TAGS_QINQ
from tests.kinds import solicit

MAC = SETTING.mac.hex(":")


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_an_object_has_the_keys_that_it_is_to_have_and_late_where_it_is() -> None:
    assert json.loads(as_json(told(tags=TAGS_8021Q))) == {
        "time": "2025-11-29T23:30:00.123456Z",
        "interface": "wan0",
        "vlan": [100],
        "source": "fe80::2",
        "source_mac": "02:00:00:00:00:02",
        "target": "2001:db8:1::42",
        "outcome": "answered_xdp",
        "reason": "present, by method static",
        "rule": "2001:db8:1::/64",
        "by": "xdp",
        "advertisement": advertisement(TAGS_8021Q).hex(),
    }
    for each in examples():
        found = json.loads(as_json(each))
        assert found.get("late") == (True if each.traced.late else None)
        assert (found["by"] is None) == (found["advertisement"] is None) == (each.traced.advertisement is None)
        assert "\n" not in as_json(each)


def test_what_a_broken_frame_lacks_is_null() -> None:
    found = json.loads(as_json(told(Outcome.UNMATCHED, frame=solicit(SETTING)[:60], rule=None, decision=None)))
    assert (found["source"], found["target"], found["rule"]) == ("fe80::2", None, None)
    short = json.loads(as_json(told(Outcome.UNMATCHED, frame=solicit(SETTING)[:14], rule=None, decision=None)))
    assert (short["source"], short["target"], short["source_mac"]) == (None, None, "02:00:00:00:00:02")


def test_a_time_has_its_microseconds_also_where_they_are_none() -> None:
    found = json.loads(as_json(told()._replace(at=1_764_459_000_000_000_999)))
    assert found["time"] == "2025-11-29T23:30:00.000000Z"


def test_the_summary_is_an_object_of_its_own() -> None:
    assert json.loads(summary_json(9, 1, 10)) == {"summary": {"seen": 9, "lost": 1, "counted": 10}}
    assert summary_text(1_234, 0, 1_234) == "1,234 seen, 0 lost, 1,234 counted"


def test_lines_are_aligned_and_say_the_same() -> None:
    lines = Lines(coloured=False)
    found = [lines.line(each) for each in examples()]
    assert found[0] == (
        f"23:30:00.123456  wan0      {'fe80::2':<25}  02:00:00:00:00:02  > {'2001:db8:1::42':<25}  answered_xdp     "
        f"present, by method static; rule 2001:db8:1::/64; NA by XDP: {MAC}, R=1 S=1 O=0 to 02:00:00:00:00:02"
    )
    assert found[5] == (
        f"23:30:00.123456  wan0      {'fe80::2':<25}  02:00:00:00:00:02  > {'2001:db8:1::42':<25}  late answer      "
        "it was pending, and has been found behind lan0; rule 2001:db8:1::/64; "
        f"NA by Python: {MAC}, R=1 S=1 O=0 to 02:00:00:00:00:02"
    )
    assert "  wan0:100  " in found[1]
    assert re.search(r"> something +unmatched +no rule covers it$", found[3])
    places = {
        (line.index("  fe80"), line.index("  > "), line.index(each.why))
        for line, each in zip(found, examples(), strict=True)
    }
    assert len(places) == 1, "from the first line on"


def test_columns_stay_as_wide_as_they_have_got() -> None:
    lines = Lines(coloured=False)
    short, long = told(), told()._replace(interface="enp129s0f1np1")
    before, wide, after = map(lines.line, (short, long, short))
    assert before.index("  > ") < wide.index("  > ") == after.index("  > ")


def test_outcomes_are_told_apart_by_colours_on_a_terminal_only() -> None:
    plain, coloured = Lines(coloured=False), Lines(coloured=True)
    seen = set()
    for outcome in Outcome:
        each = told(outcome, tags=TAGS_QINQ)
        line = coloured.line(each)
        found = re.search(r"\x1b\[(\d+)m(\w+)\x1b\[0m", line)
        assert found is not None
        assert found[2] == outcome
        seen.add(found[1])
        assert re.sub(r"\x1b\[\d+m", "", line) == plain.line(each)
        assert "\x1b" not in plain.line(each)
    assert len(seen) == 4


def test_an_advertisement_that_is_none_of_ours_is_told_of_all_the_same() -> None:
    each = told()
    odd = each._replace(traced=each.traced._replace(advertisement=bytes(60)))
    assert (
        Lines(coloured=False)
        .line(odd)
        .endswith("NA by XDP: no IPv6 header behind the MAC addresses and up to two VLAN tags")
    )
