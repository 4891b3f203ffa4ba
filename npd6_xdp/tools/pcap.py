# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames out of a capture, pcap or pcapng, as they come: from a file, a pipe or standard input."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from npd6_xdp.core.errors import MachineError, UsageError

ETHERNET = 1  # LINKTYPE_ETHERNET
SLL = 113  # LINKTYPE_LINUX_SLL
SLL2 = 276  # LINKTYPE_LINUX_SLL2
STDIN = Path("-")

_GZIP = b"\x1f\x8b"
_UNITS = {0xA1B2C3D4: 1e-6, 0xA1B23C4D: 1e-9}  # a pcap file's magic number, and what its times count in (seconds)
_SECTION = b"\x0a\x0d\x0d\x0a"  # the type of a pcapng section's first block, the same in either byte order
_BYTE_ORDER = 0x1A2B3C4D
_INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 1, 2, 3, 6  # types of pcapng blocks
_TIME_UNIT, _TIME_OFFSET = 9, 14  # options of an interface: if_tsresol, if_tsoffset
_LONGEST = 1 << 24  # bytes of a record or block; libpcap itself takes 256 KiB of a frame


class Frame(NamedTuple):
    """One captured frame: its number in the file, from 1, when it came (seconds since 1970), and its bytes.

    `size` is how many bytes it had on the wire; a capture may have kept fewer. `link` says what `data` begins with:
    ETHERNET, or a cooked header, SLL or SLL2, which counts in `size`, too.
    """

    number: int
    at: float
    data: bytes
    size: int
    link: int = ETHERNET


def frames(path: Path) -> Iterator[Frame]:
    """The frames of a capture file, in its order, each as soon as it is there; STDIN is standard input.

    Raises UsageError for a file that can't be used, and MachineError at the end of one that is cut off there: what is
    whole of it has been yielded then.
    """
    name = "standard input" if path == STDIN else str(path)
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as file:
            yield from _numbered(name, file)
    except OSError as error:
        raise UsageError(f"{name}: can't read it: {error.strerror}") from error


class _Raw(NamedTuple):
    at: float
    data: bytes
    size: int
    link: int


class _CutError(Exception):
    """The file ends in the middle of something, or what follows can't be."""


def _numbered(name: str, file: IO[bytes]) -> Iterator[Frame]:
    head = file.read(4)
    if head[:2] == _GZIP:
        raise UsageError(f"{name}: it is compressed; decompress it first: gunzip")
    no_capture = UsageError(f"{name}: no capture: neither pcap nor pcapng")
    number = 0
    try:
        found = _blocks(file) if head == _SECTION else _records(file, head)
        next(found)  # its header
    except _CutError:
        raise no_capture from None
    try:
        for number, raw in enumerate((each for each in found if each is not None), 1):
            if raw.link not in (ETHERNET, SLL, SLL2):
                raise UsageError(
                    f"{name}: frame {number} has no Ethernet header (link type {raw.link}):"
                    " capture on an Ethernet interface, or on `any`"
                )
            yield Frame(number, *raw)
    except _CutError:
        raise MachineError(f"{name}: cut off behind frame {number}: the file isn't whole") from None


def _read(file: IO[bytes], size: int) -> bytes:
    if size > _LONGEST:
        raise _CutError
    data = file.read(size)
    if len(data) < size:
        raise _CutError
    return data


def _records(file: IO[bytes], magic: bytes) -> Iterator[_Raw | None]:
    """The records of a pcap file; None for its header, once that is read."""
    for order in "<>":
        unit = _UNITS.get(int.from_bytes(magic, "little" if order == "<" else "big"))
        if unit is not None and len(magic) == 4:
            break
    else:
        raise _CutError
    (link,) = struct.unpack(f"{order}16xI", _read(file, 20))
    yield None
    while header := file.read(16):
        if len(header) < 16:
            raise _CutError
        seconds, parts, captured, size = struct.unpack(f"{order}IIII", header)
        yield _Raw(seconds + parts * unit, _read(file, captured), size, link & 0xFFFF)  # above: what is known of an FCS


class _Interface(NamedTuple):
    link: int
    snap: int
    unit: float  # seconds
    offset: int  # seconds


def _blocks(file: IO[bytes]) -> Iterator[_Raw | None]:
    """The packet blocks of a pcapng file; None for its first block, once that is read. Each section says its order."""
    order, interfaces = "<", list[_Interface]()
    kind = _SECTION
    while kind:
        if len(kind) < 4:
            raise _CutError
        if kind == _SECTION:
            rest = _read(file, 8)
            order = "<" if struct.unpack_from("<I", rest, 4)[0] == _BYTE_ORDER else ">"
            interfaces = []
        else:
            rest = _read(file, 4)
        length = int(struct.unpack_from(f"{order}I", rest)[0])
        if length < 8 + len(rest):
            raise _CutError
        body = _read(file, length + -length % 4 - 4 - len(rest))[: length - 8 - len(rest)]
        if kind == _SECTION:
            yield None
        else:
            number = int(struct.unpack(f"{order}I", kind)[0])
            try:
                if number == _INTERFACE:
                    interfaces.append(_interface(order, body))
                elif number in (_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
                    yield _packet(order, number, body, interfaces)
            except (struct.error, IndexError):
                raise _CutError from None
        kind = file.read(4)


def _interface(order: str, body: bytes) -> _Interface:
    """An Interface Description Block's body, and those of its options that concern time."""
    link, snap = struct.unpack_from(f"{order}H2xI", body)
    unit, offset = 1e-6, 0
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == _TIME_UNIT and length == 1:
            unit = 2.0 ** -(value[0] & 0x7F) if value[0] & 0x80 else 10.0 ** -value[0]
        elif code == _TIME_OFFSET and length == 8:
            (offset,) = struct.unpack(f"{order}q", value)
        elif code == 0:
            break
        at += 4 + length + -length % 4
    return _Interface(link, snap, unit, offset)


def _packet(order: str, kind: int, body: bytes, interfaces: list[_Interface]) -> _Raw:
    """A packet block's body."""
    if kind == _SIMPLE_PACKET:  # it has no time, and is of the first interface
        (size,) = struct.unpack_from(f"{order}I", body)
        first = interfaces[0]
        return _Raw(0.0, body[4 : 4 + min(size, first.snap or size)], size, first.link)
    number, high, low, captured, size = struct.unpack_from(f"{order}IIIII", body)
    if kind == _OLD_PACKET:  # 16 bits of the interface, 16 of drops
        (number,) = struct.unpack_from(f"{order}H", body)
    interface = interfaces[number]
    if 20 + captured > len(body):
        raise _CutError
    at = (high << 32 | low) * interface.unit + interface.offset
    return _Raw(at, body[20 : 20 + captured], size, interface.link)
