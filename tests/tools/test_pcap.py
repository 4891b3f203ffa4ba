# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures as scapy writes them, and what is wrong with others."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgWriter, RawPcapWriter, wrpcap, wrpcapng

from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.tools.pcap import Frame, frames
from tests.frames import SETTING
from tests.kinds import solicit

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


@pytest.mark.parametrize("kind", [*WRITERS, "nanoseconds"])
@given(
    st.lists(
        st.tuples(st.binary(min_size=14, max_size=70), st.integers(0, 2**31), st.integers(0, 999_999)), max_size=4
    ),
    st.sampled_from([1, 113, 276]),
    st.integers(0, 400),
)
@settings(deadline=None)
def test_any_capture_is_read_as_scapy_writes_it_and_whole_up_to_where_it_is_cut(
    kind: str, packets: list[tuple[bytes, int, int]], link: int, cut: int
) -> None:
    with NamedTemporaryFile() as file:
        path = Path(file.name)
        writer: Any = RawPcapNgWriter(file.name) if kind == "pcapng" else RawPcapWriter(file.name, linktype=link)
        with writer:
            if kind == "pcapng":
                writer.linktype = link
            else:
                writer.nano = kind == "nanoseconds"
            writer.write_header(None)
            for data, seconds, parts in packets:
                whole_seconds = {"sec": seconds + parts * 1e-6} if kind == "pcapng" else {"sec": seconds, "usec": parts}
                writer.write_packet(data, **whole_seconds)
        unit = 1e-9 if kind == "nanoseconds" else 1e-6
        wanted = [(data, len(data), link) for data, *_ in packets]
        found = list(frames(path))
        assert [(frame.data, frame.size, frame.link) for frame in found] == wanted
        for frame, (_, seconds, parts) in zip(found, packets, strict=True):
            assert frame.at == pytest.approx(seconds + parts * unit, abs=2.1e-6)
        whole = path.read_bytes()
        path.write_bytes(whole[: max(0, len(whole) - cut)])
        rest: list[Frame] = []
        with suppress(MachineError, UsageError):
            rest += frames(path)
        assert [(frame.data, frame.size, frame.link) for frame in rest] == wanted[: len(rest)]


def test_a_frame_is_there_as_soon_as_a_pipe_has_it() -> None:
    """As `tcpdump -U -w -` writes them: whoever reads on would wait for ever."""
    with TemporaryDirectory() as directory:
        whole = write(Path(directory)).read_bytes()
        pipe = Path(directory) / "pipe"
        os.mkfifo(pipe)
        found = frames(pipe)
        with ThreadPoolExecutor() as pool:
            first = pool.submit(next, found)
            with pipe.open("wb", buffering=0) as writer:
                writer.write(whole[: 24 + 16 + len(FRAMES[0])])
                assert first.result(timeout=60).data == FRAMES[0]
                second = pool.submit(next, found)
                writer.write(whole[24 + 16 + len(FRAMES[0]) :])
                assert second.result(timeout=60).data == FRAMES[1]
            assert [frame.data for frame in found] == FRAMES[2:]


def pcapng_block(kind: int, body: bytes, order: str = "<") -> bytes:
    length = 12 + len(body)
    return struct.pack(f"{order}II", kind, length) + body + struct.pack(f"{order}I", length)


@pytest.mark.parametrize("order", ["<", ">"])
def test_sections_interfaces_and_old_kinds_of_packets_of_pcapng_are_told_apart(tmp_path: Path, order: str) -> None:
    def section(order: str) -> bytes:
        return pcapng_block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)

    def interface(link: int, options: bytes = b"") -> bytes:
        return pcapng_block(1, struct.pack(f"{order}HHI", link, 0, 65535) + options, order)

    data = FRAMES[0] + bytes(-len(FRAMES[0]) % 4)
    size = len(FRAMES[0])
    nanoseconds = struct.pack(f"{order}HHB3x", 9, 1, 9) + struct.pack(f"{order}HHq", 14, 8, 1_000) + bytes(4)
    binary = struct.pack(f"{order}HHB3x", 9, 1, 0x80 | 10)
    content = [
        section("<" if order == ">" else ">"),
        section(order),
        interface(1),
        interface(113, nanoseconds),
        interface(276, binary),
        pcapng_block(0x0BAD, bytes(8), order),
        pcapng_block(6, struct.pack(f"{order}IIIII", 1, 0, 5_000, size, size) + data, order),
        pcapng_block(6, struct.pack(f"{order}IIIII", 2, 0, 2_048, size, size) + data, order),
        pcapng_block(2, struct.pack(f"{order}HHIIII", 0, 9, 0, 7_000_000, size, size) + data, order),
        pcapng_block(3, struct.pack(f"{order}I", size) + data, order),
    ]
    file = tmp_path / "a.pcapng"
    file.write_bytes(b"".join(content))
    found = list(frames(file))
    assert [(frame.link, frame.at) for frame in found] == [
        (113, pytest.approx(1_000.000005)),
        (276, 2.0),
        (1, 7.0),
        (1, 0.0),
    ]
    assert {frame.data for frame in found} == {FRAMES[0]}
    file.write_bytes(section(order) + content[6])
    with pytest.raises(MachineError, match="cut off behind frame 0"):
        list(frames(file))


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
            struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
            + struct.pack("<IIII", 1, 0, 20, 20)
            + bytes(20),
            "frame 1 has no Ethernet header (link type 101): capture on an Ethernet interface, or on `any`",
        ),
    ],
    ids=["empty", "text", "magic only", "pcapng magic only", "gzip", "a tunnel's"],
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
