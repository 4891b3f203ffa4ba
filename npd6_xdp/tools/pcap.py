# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames out of a capture file, pcap or pcapng (scapy)."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from scapy.error import Scapy_Exception
from scapy.utils import RawPcapReader

from npd6_xdp.core.errors import MachineError, UsageError

_ETHERNET = 1  # LINKTYPE_ETHERNET
_GZIP = b"\x1f\x8b"
_SECTION = 0x0A0D0D0A  # the type of a pcapng section's first block, the same in either byte order
_BYTE_ORDER = 0x1A2B3C4D


class Frame(NamedTuple):
    """One captured frame: its number in the file, from 1, when it came (seconds since 1970), and its bytes.

    `size` is how many bytes it had on the wire; a capture may have kept fewer.
    """

    number: int
    at: float
    data: bytes
    size: int


def frames(path: Path) -> Iterator[Frame]:
    """The Ethernet frames of a capture file, in its order.

    Raises UsageError for a file that can't be used, and MachineError at the end of one that is cut off there: what is
    whole of it has been yielded then.
    """
    logging.getLogger("scapy").setLevel(logging.ERROR)  # its words about broken files; ours follow
    try:
        with path.open("rb") as file:
            yield from _frames(path, file)
    except OSError as error:
        raise UsageError(f"{path}: can't read it: {error.strerror}") from error


def _frames(path: Path, file: IO[bytes]) -> Iterator[Frame]:
    if file.read(2) == _GZIP:
        raise UsageError(f"{path}: it is compressed; decompress it first: gunzip")
    whole = _is_whole(file)
    file.seek(0)
    try:
        reader = RawPcapReader(file)
    except (Scapy_Exception, EOFError, struct.error) as error:
        raise UsageError(f"{path}: no capture: neither pcap nor pcapng") from error
    last = 0
    for number, (data, about) in enumerate(reader, 1):
        link = getattr(about, "linktype", getattr(reader, "linktype", None))
        if link != _ETHERNET:
            raise UsageError(
                f"{path}: frame {number} has no Ethernet header (link type {link}):"
                " capture on the interface itself, not on `any`"
            )
        if len(data) < getattr(about, "caplen", 0):
            break  # the end of a file that isn't whole
        yield Frame(number, _seconds(reader, about), data, about.wirelen)
        last = number
    if not whole:
        raise MachineError(f"{path}: cut off behind frame {last}: the file isn't whole")


def _seconds(reader: Any, about: Any) -> float:
    if hasattr(about, "sec"):
        return float(about.sec) + float(about.usec) / (1e9 if reader.nano else 1e6)
    if about.tshigh is None:  # a simple packet block has no time
        return 0.0
    return float((about.tshigh << 32) + about.tslow) / float(about.tsresol)


def _is_whole(file: IO[bytes]) -> bool:
    """Whether the file ends where a frame does, which scapy doesn't tell. True for what is no capture."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(24)
    if head[:4] == _SECTION.to_bytes(4):
        return _blocks_end(file) == size
    for order in "<>":
        if len(head) == 24 and struct.unpack_from(f"{order}I", head)[0] in (0xA1B2C3D4, 0xA1B23C4D):
            return _records_end(file, order) == size
    return True


def _records_end(file: IO[bytes], order: str) -> int:
    """Where the last record of a pcap file ends, or should."""
    at = 24
    while len(header := _at(file, at, 16)) == 16:
        at += 16 + int(struct.unpack_from(f"{order}I", header, 8)[0])
    return at if not header else -1


def _blocks_end(file: IO[bytes]) -> int:
    """Where the last block of a pcapng file ends, or should; each section says its own byte order."""
    at, order = 0, "<"
    while len(header := _at(file, at, 12)) == 12:
        if header[:4] == _SECTION.to_bytes(4):
            order = "<" if struct.unpack_from("<I", header, 8)[0] == _BYTE_ORDER else ">"
        length = int(struct.unpack_from(f"{order}I", header, 4)[0])
        if length < 12:
            return -1
        at += length + -length % 4
    return at if not header else -1


def _at(file: IO[bytes], at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
