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


def decode(data: bytes) -> str:
    """The text of UTF-8, without the byte order mark that some editors put before it. ValueError says what it is."""
    for mark, name in _WIDER:
        if data.startswith(mark):
            raise ValueError(f"it is {name}; save it as UTF-8")
    body = data.removeprefix(codecs.BOM_UTF8)
    if (zero := body.find(0)) >= 0:
        if {body[1::2].count(0), body[::2].count(0)} == {0, len(body) / 2}:
            raise ValueError("it looks like UTF-16 without a byte order mark; save it as UTF-8")
        line = body.count(b"\n", 0, zero) + 1
        raise ValueError(f"not text: a zero byte in line {line}; is it the right file?")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(body)
        line = body.count(b"\n", 0, error.start) + 1
        raise ValueError(f"not UTF-8 text: byte {at} can't be decoded, in line {line}; save it as UTF-8") from None
