# SPDX-License-Identifier: GPL-2.0-or-later
"""A text file's bytes as text, or an error that says what they are instead."""

from __future__ import annotations

import codecs

_WIDER = (  # UTF-32's little-endian mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class TextError(ValueError):
    """What is wrong with a text, and the line and column where (from 1)."""

    def __init__(self, what: str, before: bytes) -> None:
        super().__init__(what)
        self.line = before.count(b"\n") + 1
        self.column = len(before[before.rfind(b"\n") + 1 :].decode(errors="replace")) + 1


def decode(data: bytes) -> str:
    """The text of UTF-8, without the byte order mark that some editors put before it. ValueError says what it is,
    and TextError where.
    """
    for mark, name in _WIDER:
        if data.startswith(mark):
            raise ValueError(f"it is {name}; save it as UTF-8")
    body = data.removeprefix(codecs.BOM_UTF8)
    if (zero := body.find(0)) >= 0:
        if {body[1::2].count(0), body[::2].count(0)} == {0, len(body) / 2}:
            raise ValueError("it looks like UTF-16 without a byte order mark; save it as UTF-8")
        raise TextError("not text: a zero byte; is it the right file?", body[:zero])
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(body)
        raise TextError(f"not UTF-8 text: byte {at} can't be decoded; save it as UTF-8", body[: error.start]) from None
