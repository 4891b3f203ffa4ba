# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures as scapy writes them, and what is wrong with others."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapWriter, wrpcap, wrpcapng

from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.tools.pcap import frames
from tests.frames import SETTING, solicit

FRAMES = [solicit(SETTING), solicit(SETTING, options=b""), bytes(60)]
WRITERS: dict[str, Callable[..., Any]] = {"pcap": wrpcap, "pcapng": wrpcapng}

both = pytest.mark.parametrize("kind", list(WRITERS))


def write(path: Path, kind: str = "pcap") -> Path:
    packets = [Ether(frame) for frame in FRAMES]
    for number, packet in enumerate(packets):
        packet.time = 1_700_000_000.25 + number
    file = path / f"a.{kind}"
    WRITERS[kind](str(file), packets)
    return file


@both
def test_frames_come_with_their_numbers_times_and_bytes(tmp_path: Path, kind: str) -> None:
    found = list(frames(write(tmp_path, kind)))
    assert [(frame.number, frame.data, frame.size) for frame in found] == [
        (number, data, len(data)) for number, data in enumerate(FRAMES, 1)
    ]
    assert [frame.at for frame in found] == pytest.approx([1_700_000_000.25 + n for n in range(3)], abs=1e-5)


@both
def test_a_file_cut_anywhere_yields_what_is_whole_and_says_so(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path, kind)
    data = file.read_bytes()
    ends = [len(data)]
    for size in range(len(data) - 1, 24, -1):
        file.write_bytes(data[:size])
        found = []
        try:
            for frame in frames(file):
                found.append(frame.data)
        except MachineError as error:
            assert str(error) == f"{file}: cut off behind frame {len(found)}: the file isn't whole"  # noqa: PT017
        except UsageError as error:  # within the section's header
            assert "no capture" in str(error) and not found  # noqa: PT017, PT018
        else:
            ends.append(size)
        assert found == FRAMES[: len(found)]
    assert len(ends) == (3 if kind == "pcap" else 5), "behind each frame, and behind the headers of pcapng"


def test_big_endian_and_nanosecond_files_are_read(tmp_path: Path) -> None:
    for order in "<>":
        for magic, unit in ((0xA1B2C3D4, 1e-6), (0xA1B23C4D, 1e-9)):
            file = tmp_path / "a.pcap"
            file.write_bytes(
                struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
                + struct.pack(f"{order}IIII", 1_000, 500, len(FRAMES[0]), len(FRAMES[0]))
                + FRAMES[0]
            )
            (frame,) = frames(file)
            assert frame.data == FRAMES[0]
            assert frame.at == pytest.approx(1_000 + 500 * unit, abs=1e-12)


def test_a_frame_that_the_capture_cut_short_says_how_long_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    with RawPcapWriter(str(file), linktype=1) as writer:
        writer.write_header(None)
        writer.write_packet(FRAMES[0][:64], sec=1, usec=0, caplen=64, wirelen=len(FRAMES[0]))
    (frame,) = frames(file)
    assert (len(frame.data), frame.size) == (64, len(FRAMES[0]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no capture: neither pcap nor pcapng"),
        (b"[[interface]]\nname = 'wan0'\n", "no capture: neither pcap nor pcapng"),
        (b"\xd4\xc3\xb2\xa1", "no capture: neither pcap nor pcapng"),
        (b"\x0a\x0d\x0d\x0a" + bytes(20), "no capture: neither pcap nor pcapng"),
        (gzip.compress(bytes(100)), "it is compressed; decompress it first: gunzip"),
        (
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 276)
            + struct.pack("<IIII", 1, 0, 20, 20)
            + bytes(20),
            "frame 1 has no Ethernet header (link type 276): capture on the interface itself, not on `any`",
        ),
    ],
    ids=["empty", "text", "magic only", "pcapng magic only", "gzip", "cooked"],
)
def test_what_is_no_capture_of_ethernet_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "a.pcap"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        list(frames(file))
    assert str(caught.value) == f"{file}: {words}"


@pytest.mark.parametrize(("name", "words"), [("gone", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"can't read it: {words}"):
        list(frames(tmp_path / name))
