# SPDX-License-Identifier: GPL-2.0-or-later
"""The captures that `trace` writes, as others read them: our own reader, scapy, tcpdump and tshark."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from npd6_xdp.core import pcapng
from npd6_xdp.core.trace_told import Packets
from npd6_xdp.tools.pcap import ETHERNET, frames
from tests.core.told import AT, advertisement, examples, told
from tests.frames import SETTING, TAGS_8021Q
from tests.kinds import solicit

LATER = AT + 2_000_000_000


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, and one on another interface."""
    file = tmp_path_factory.mktemp("trace") / "a.pcapng"
    packets = Packets("npd6-xdp test")
    there = [*examples(), told()._replace(interface="wan1")]
    file.write_bytes(packets.begin + b"".join(block for each in there for block in packets.blocks(each, LATER)))
    return file


PLAIN = solicit(SETTING)
TAGGED = PLAIN[:12] + TAGS_8021Q + PLAIN[12:]
WANTED: tuple[tuple[str, bytes, int, str], ...] = (
    ("wan0", PLAIN, len(PLAIN), "answered_xdp: present, by method static; rule 2001:db8:1::/64"),
    ("wan0", advertisement(), 86, "answered_xdp: by xdp; present, by method static; rule 2001:db8:1::/64"),
    ("wan0", TAGGED, len(TAGGED), "answered_python: present, by method static; rule 2001:db8:1::/64"),
    (
        "wan0",
        advertisement(TAGS_8021Q),
        90,
        "answered_python: by python; present, by method static; rule 2001:db8:1::/64",
    ),
    (
        "wan0",
        solicit(SETTING, hop_limit=64),
        len(PLAIN),
        "invalid: its hop limit isn't 255, so it came through a router (RFC 4861 §7.1.1)",
    ),
    ("wan0", PLAIN[:60], 4158, "unmatched: no rule covers it"),
    (
        "wan0",
        PLAIN,
        len(PLAIN),
        "pending: the neighbour table doesn't have it behind lan0; the kernel asks, and nobody has answered yet;"
        " rule 2001:db8:1::/64",
    ),
    (
        "wan0",
        advertisement(),
        86,
        "late answer: by python; it was pending, and has been found behind lan0; rule 2001:db8:1::/64",
    ),
    (
        "wan0",
        PLAIN,
        len(PLAIN),
        "rate_limited: all together have sent as much up to Python as limits.events_per_second allows; rule"
        " 2001:db8:1::/64",
    ),
    ("wan0", PLAIN, len(PLAIN), "unmatched: no rule covers it"),
    ("wan1", PLAIN, len(PLAIN), "answered_xdp: present, by method static; rule 2001:db8:1::/64"),
    ("wan1", advertisement(), 86, "answered_xdp: by xdp; present, by method static; rule 2001:db8:1::/64"),
)
LATE = 7  # its place


def test_our_own_reader_finds_each_question_and_each_answer(capture: Path) -> None:
    found = list(frames(capture))
    assert [(each.data, each.size, each.link) for each in found] == [
        (frame, size, ETHERNET) for _, frame, size, _ in WANTED
    ]
    for number, each in enumerate(found):
        assert each.at == pytest.approx((LATER if number == LATE else AT) / 1e9, abs=1e-6)


def test_scapy_finds_the_same(capture: Path) -> None:
    with RawPcapNgReader(str(capture)) as reader:
        found = list(reader)
    assert [data for data, _ in found] == [frame for _, frame, _, _ in WANTED]
    assert [meta.wirelen for _, meta in found] == [size for _, _, size, _ in WANTED]
    assert {(meta.tshigh << 32 | meta.tslow) for _, meta in found} == {AT, LATER}


def test_tcpdump_reads_all_of_it(capture: Path) -> None:
    done = subprocess.run(
        ["tcpdump", "-n", "-e", "-r", str(capture)], capture_output=True, text=True, timeout=120, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(WANTED)
    assert sum("neighbor solicitation, who has 2001:db8:1::42" in line for line in lines) >= 6
    assert sum("neighbor advertisement, tgt is 2001:db8:1::42" in line for line in lines) == 4
    assert sum("vlan 100" in line for line in lines) == 2


def tshark(capture: Path, *fields: str) -> list[list[str]]:
    words = ["tshark", "-r", str(capture), "-T", "json", *(word for field in fields for word in ("-e", field))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return [
        [(packet["_source"]["layers"].get(field) or [""])[0] for field in fields] for packet in json.loads(done.stdout)
    ]


def test_tshark_shows_interface_verdict_direction_and_length(capture: Path) -> None:
    found = tshark(capture, "frame.interface_name", "frame.comment", "frame.len", "frame.cap_len")
    assert found == [[name, comment, str(size), str(len(frame))] for name, frame, size, comment in WANTED]
    flags = tshark(capture, "frame.packet_flags_direction", "frame.packet_flags_reception_type")
    answers = [number for number, (_, frame, _, _) in enumerate(WANTED) if len(frame) in (86, 90) and frame[0] == 2]
    for number, (direction, reception) in enumerate(flags):
        assert int(direction, 0) == (2 if number in answers else 1)
        assert int(reception, 0) == (1 if number in answers else 2)
    (times,) = zip(*tshark(capture, "frame.time_epoch"), strict=True)
    assert times[0] == "1764459000.123456789"
    assert times[LATE] == "1764459002.123456789"


def test_a_comment_is_never_longer_than_the_format_allows() -> None:
    block = pcapng.packet(0, AT, PLAIN, len(PLAIN), pcapng.Direction.INBOUND, "§" * 70_000)
    assert len(block) < 1 << 17
    assert "§".encode()[:1] * 2 not in block
    assert int.from_bytes(block[4:8], "little") == int.from_bytes(block[-4:], "little") == len(block)
