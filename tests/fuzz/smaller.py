# SPDX-License-Identifier: GPL-2.0-or-later
"""A smaller frame that differs as well: without what doesn't matter, and with zeros for what may be anything."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_TPIDS = (b"\x81\x00", b"\x88\xa8")
_MOST_TRIES = 1500


class _Place(NamedTuple):
    """Where the IPv6 header and the ICMPv6 message stand."""

    ip: int
    message: int


def _place(frame: bytes) -> _Place | None:
    ip = 12
    while frame[ip : ip + 2] in _TPIDS:
        ip += 4
    ip += 2
    message, following = ip + 40, frame[ip + 6] if len(frame) > ip + 6 else 59
    while following in (0, 44, 60) and len(frame) >= message + 8:
        size = 8 if following == 44 else 8 + 8 * frame[message + 1]
        following, message = frame[message], message + size
    return _Place(ip, message) if following == 58 and len(frame) >= message + 4 else None


class Smaller:
    """Makes frames smaller, as long as `differs` says that one still shows it."""

    def __init__(self, lib: Any, differs: Callable[[bytes], bool]) -> None:
        self._lib, self._differs = lib, differs
        self._tries = 0

    def of(self, frame: bytes) -> bytes:
        """The smallest that was found."""
        found = True
        while found:
            found = False
            for candidate in self._candidates(frame):
                self._tries += 1
                if self._tries > _MOST_TRIES:
                    return frame
                if candidate != frame and len(candidate) >= 14 and self._differs(candidate):
                    frame, found = candidate, True
                    break
        return frame

    def _candidates(self, frame: bytes) -> Iterator[bytes]:
        if frame[12:14] in _TPIDS:
            yield frame[:12] + frame[16:]
        place = _place(frame)
        if place is not None:
            for end in range(place.message + 24, len(frame), 8):
                cut = bytearray(frame[:end])
                cut[place.ip + 4 : place.ip + 6] = (end - place.ip - 40).to_bytes(2)
                yield from self._sealed(bytes(cut))
            for size in (512, 64, 8):
                for start in range(place.ip + 40, len(frame) - size + 1, size):
                    shorter = bytearray(frame[:start] + frame[start + size :])
                    payload = int.from_bytes(frame[place.ip + 4 : place.ip + 6]) - size
                    yield bytes(shorter)
                    if payload >= 0:
                        shorter[place.ip + 4 : place.ip + 6] = payload.to_bytes(2)
                        yield from self._sealed(bytes(shorter))
        for size in (32, 4, 1):
            yield frame[:-size]
        for size in (16, 4, 1):
            for start in range(0, len(frame) - size + 1, size):
                if any(frame[start : start + size]):
                    yield from self._sealed(frame[:start] + bytes(size) + frame[start + size :])

    def _sealed(self, frame: bytes) -> Iterator[bytes]:
        """The frame with a right checksum, and as it is."""
        place = _place(frame)
        length = 0
        if place is not None:
            length = int.from_bytes(frame[place.ip + 4 : place.ip + 6]) - (place.message - place.ip - 40)
        if place is not None and 4 <= length <= len(frame) - place.message:
            buffer = (ct.c_uint8 * len(frame))(*frame)
            start = ct.addressof(buffer)
            self._lib.checksum_into(start + place.ip, start + place.message, length)
            yield bytes(buffer)
        yield frame
