# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp replay`: what it says of captures that scapy has written, of an interface that isn't here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapWriter, wrpcap, wrpcapng

import npd6_xdp
from npd6_xdp.core.verdict import Reason
from tests.frames import SETTING, TAGS_8021Q, ip6
from tests.judge import judge_advertisement
from tests.kinds import KINDS, Wanted, solicit
from tests.spoken import spoken

ROOT = Path(npd6_xdp.__file__).parent.parent
MAC = SETTING.mac.hex(":")
CONFIG = """\
[[interface]]
name = "wan77"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "static"
exclude = ["::9"]
[[interface.rule]]
prefix = "2001:db8:2::/64"
method = "kernel"
[[interface.rule]]
prefix = "2001:db8:3::/64"
method = "neighbour"
via = ["lan77"]
[[interface.rule]]
prefix = "2001:db8:4::/64"
method = "static"
dad = "defend"
[[interface]]
name = "wan77"
vlan = 100
datapath = "python"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "static"
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")


def replay(*argv: str) -> subprocess.CompletedProcess[str]:
    return spoken("replay", *argv)


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "a.toml"
    file.write_text(CONFIG)
    return str(file)


def write(file: Path, frames: Iterable[bytes]) -> str:
    frames = list(frames)
    packets = [Ether(frame) for frame in frames]
    assert [bytes(packet) for packet in packets] == frames
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000 + number / 4
    (wrpcapng if file.suffix == ".pcapng" else wrpcap)(str(file), packets)
    return str(file)


def ask(target: str, **fields: Any) -> bytes:
    return solicit(replace(SETTING, target=ip6(target), tags=fields.pop("tags", b"")), **fields)


UNSPECIFIED = bytes(16)
CASES: tuple[tuple[bytes, str, str, bool], ...] = (
    (ask("2001:db8:1::42"), "answered_xdp", "present, by method static", True),
    (ask("2001:db8:1::9"), "ignored", "its include and exclude leave it out", False),
    (
        ask("2001:db8:2::7"),
        "answered_python",
        "the first time; the kernel's proxy entry answers from then on",
        True,
    ),
    (ask("2001:db8:2::7"), "kernel", "the kernel's proxy entry for it answers", False),
    (
        ask("2001:db8:3::7"),
        "pending",
        "the neighbour table doesn't have it behind lan77; the kernel would resolve it",
        True,
    ),
    (ask("2001:db8:1::42", source=UNSPECIFIED, options=b""), "dad", 'a DAD probe, and dad = "ignore"', False),
    (
        ask("2001:db8:4::42", source=UNSPECIFIED, options=b""),
        "answered_python",
        "a DAD probe to be defended; present, by method static",
        True,
    ),
    (ask("2001:db8:5::1"), "unmatched", "no rule covers it", False),
    (ask("fe80::7"), "ignored", "such a target is never answered, unless a rule names exactly this address", False),
    (ask("2001:db8:1::42", tags=TAGS_8021Q), "answered_python", "present, by method static", True),
    (
        ask("2001:db8:1::42", tags=bytes.fromhex("810000c8")),
        "unmatched",
        "no [[interface]] entry matches VLAN 200 of wan77",
        False,
    ),
    (
        ask("2001:db8:1::42", checksum_error=1),
        "invalid",
        "its checksum is wrong (RFC 4861 §7.1.1)",
        False,
    ),
    (
        b"\x02\0\0\0\0\x77" + ask("2001:db8:1::42")[6:],
        "ignored",
        "it went to 02:00:00:00:00:77, which isn't wan77's MAC address",
        False,
    ),
    (
        ask("2001:db8:1::42")[:6] + SETTING.mac + ask("2001:db8:1::42")[12:],
        "ignored",
        "it comes from wan77's own MAC address",
        False,
    ),
)


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_it_says_of_each_solicitation_what_becomes_of_it_and_why(tmp_path: Path, config: str, kind: str) -> None:
    others = [bytes(60), bytes(range(200))]
    file = write(tmp_path / f"a.{kind}", [*others, *(frame for frame, *_ in CASES)])
    done = replay(file, "--config", config, "--mac", MAC, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert [(each["frame"], each["outcome"], each["why"]) for each in told["solicitations"]] == [
        (number, outcome, why) for number, (_, outcome, why, _) in enumerate(CASES, 3)
    ]
    for each, (frame, _, _, answered) in zip(told["solicitations"], CASES, strict=True):
        assert each["seconds"] == pytest.approx((each["frame"] - 1) / 4, abs=1e-5)
        assert (each["advertisement"] is not None) == answered
        if answered:
            judge_advertisement(bytes.fromhex(each["advertisement"]["frame"]), frame, SETTING.mac, router=True)
            assert each["advertisement"]["only_if_there"] == (each["outcome"] == "pending")
    assert told["notes"] == [
        "wan77 is not on this machine: its own addresses and next hops are unknown; routes and neighbours are those of"
        " this machine"
    ]
    assert told["summary"] == {
        "frames": len(CASES) + 2,
        "solicitations": len(CASES),
        "others": 2,
        "not_run": 0,
        "outgoing": 0,
        "elsewhere": 0,
        "outcomes": {
            "ignored": 4,
            "answered_python": 3,
            "unmatched": 2,
            "answered_xdp": 1,
            "kernel": 1,
            "pending": 1,
            "dad": 1,
            "invalid": 1,
        },
        "reasons": {"checksum": 1},
    }


def test_every_kind_of_solicitation_meets_its_outcome(tmp_path: Path, config: str) -> None:
    file = write(tmp_path / "a.pcap", [kind.build(SETTING) for kind in KINDS])
    done = replay(file, "--config", config, "--mac", MAC, "--json")
    found = {each["frame"]: each for each in json.loads(done.stdout)["solicitations"]}
    differences = []
    for number, kind in enumerate(KINDS, 1):
        told = found.get(number)
        got = told and (told["reason"] or told["outcome"].partition("_")[0])
        wanted = None if kind.wanted is Wanted.UNSEEN else str(kind.wanted.value)
        if got != wanted and not (told is None and len(kind.build(SETTING)) > 3000):
            differences.append((kind.name, got, wanted))
    assert differences == []
    assert {reason for kind in KINDS if isinstance(reason := kind.wanted, Reason)} == {*Reason}


def test_the_text_is_for_reading(tmp_path: Path, config: str) -> None:
    frames = [ask("2001:db8:1::42"), ask("2001:db8:3::7"), ask("2001:db8:1::42", checksum_error=1), bytes(60)]
    done = replay(write(tmp_path / "a.pcap", frames), "--config", config, "--interface", "wan77")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "note: wan77 is not on this machine: its own addresses and next hops are unknown; routes and neighbours are"
        " those of this machine",
        "note: wan77's MAC address is unknown: unicast solicitations are ignored; see --mac",
        "frame 1, 0.000000 s: fe80::2 (02:00:00:00:00:02) asks who has 2001:db8:1::42",
        "  answered_xdp: rule 2001:db8:1::/64 (static); present, by method static",
        "  advertisement: 00:00:00:00:00:00 > 02:00:00:00:00:02; 2001:db8:1::42 > fe80::2, R=1 S=1 O=0, 86 bytes",
        "frame 2, 0.250000 s: fe80::2 (02:00:00:00:00:02) asks who has 2001:db8:3::7",
        "  pending: rule 2001:db8:3::/64 (neighbour); the neighbour table doesn't have it behind lan77; the kernel"
        " would resolve it",
        "  advertisement, if it is there: 00:00:00:00:00:00 > 02:00:00:00:00:02; 2001:db8:3::7 > fe80::2,"
        " R=1 S=1 O=0, 86 bytes",
        "frame 3, 0.500000 s: fe80::2 (02:00:00:00:00:02) asks who has 2001:db8:1::42",
        "  invalid checksum: its checksum is wrong (RFC 4861 §7.1.1)",
        "4 frames: 3 solicitations, 1 other",
        "  answered_xdp 1, pending 1, invalid 1",
        "  invalid by: checksum 1",
    ]


def test_what_the_capture_has_not_whole_is_said_and_the_rest_is_replayed(tmp_path: Path, config: str) -> None:
    file = tmp_path / "a.pcap"
    whole = ask("2001:db8:1::42")
    with RawPcapWriter(str(file), linktype=1) as writer:
        writer.write_header(None)
        writer.write_packet(whole)
        writer.write_packet(whole[:64], sec=1, usec=0, caplen=64, wirelen=len(whole))
    done = replay(str(file), "--config", config)
    assert done.returncode == 1
    assert "2 frames: 1 solicitation, 0 others, 1 solicitation that couldn't be run\n" in done.stdout
    assert done.stderr == (
        f"npd6-xdp: {file}: 1 solicitation couldn't be run: cut short by the capture (tcpdump -s 0 takes all), or too"
        " long for a test run\n"
    )
    file.write_bytes(file.read_bytes()[:-10])
    done = replay(str(file), "--config", config, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["summary"]["outcomes"] == {"answered_xdp": 1}
    assert done.stderr == f"npd6-xdp: {file}: cut off behind frame 1: the file isn't whole\n"


def test_each_error_is_one_line(tmp_path: Path, config: str) -> None:
    capture = write(tmp_path / "a.pcap", [ask("2001:db8:1::42")])
    two = tmp_path / "two.toml"
    two.write_text(CONFIG + '[[interface]]\nname = "lan*"\n[[interface.rule]]\nprefix = "::/0"\nmethod = "ignore"\n')
    for status, line, argv in (
        (2, f"{tmp_path}/no.pcap: can't read it: No such file or directory", (f"{tmp_path}/no.pcap", config)),
        (2, f"{config}: no capture: neither pcap nor pcapng", (config, config)),
        (
            2,
            f"--interface eth9: {config} has no such interface; it has wan77",
            (capture, config, "--interface", "eth9"),
        ),
        (
            2,
            f"--interface: name the one that this was captured on; {two} has lan*, wan77",
            (capture, str(two)),
        ),
    ):
        file, configuration, *more = argv
        done = replay(file, "--config", configuration, *more)
        assert (done.returncode, done.stderr, done.stdout) == (status, f"npd6-xdp: {line}\n", "")
    words = ("setpriv", "--bounding-set=-all", sys.executable, "-m", "npd6_xdp", "replay", capture, "--config", config)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "npd6-xdp: not permitted to load an XDP program: without CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON; run as"
        " root, or give CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON\n"
    )
    assert done.stdout == ""
    done = replay(capture, "--config", config, "--mac", "02:00")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "npd6-xdp: replay: argument --mac: '02:00' is not a MAC address such as 02:00:00:00:00:02;"
    )
    assert done.stderr.count("\n") == 1
