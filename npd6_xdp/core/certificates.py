# SPDX-License-Identifier: GPL-2.0-or-later
"""When a certificate ends (X.509, RFC 5280 §4.1), and what there is to warn of by that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

SOON = 14 * 86_400.0
"""Seconds before its end from which on a certificate is warned of."""

_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18  # tags
_VALIDITY = 3  # the field's place in a TBSCertificate, behind serialNumber, signature and issuer
_TURN = 50  # two digits are a year of this century below that (RFC 5280 §4.1.2.5.1)


def not_after(der: bytes) -> float:
    """The time until which a certificate in DER is valid, in seconds since the epoch. ValueError if it is none."""
    try:
        certificate = next(_elements(der))[1]
        fields = [*_elements(next(_elements(certificate))[1])]
        if fields[0][0] == _VERSION:
            del fields[0]
        _, (tag, value) = _elements(fields[_VALIDITY][1])
    except (IndexError, StopIteration) as error:
        raise ValueError("no certificate") from error
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < _TURN else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time where a certificate says when it ends")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that stand one behind the other, each a tag and what is in it (X.690 §8.1)."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            wide = size & 0x7F
            size, at = int.from_bytes(data[at : at + wide], "big"), at + wide
        if at + size > len(data):
            raise ValueError("no certificate: it ends too early")
        yield tag, data[at : at + size]
        at += size


def certificate_warning(path: str, ends: float, now: float) -> str:
    """The warning of a certificate that has ended, or ends within SOON; else "". Times are seconds since the epoch.

    It says the same until the end, so that it is logged once.
    """
    if ends - now > SOON:
        return ""
    when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    ending = f"it ends at {when}" if ends > now else f"it ended at {when}, and clients refuse it"
    return f"the TLS certificate {path}: {ending}; renew it, then npd6-xdp reload"
