# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a host answers an echo request (RFC 4443 §4.1) from one of this machine's addresses."""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import IPv6Address

_ECHO = struct.Struct("!BBHHH")
_REQUEST, _REPLY = 128, 129
_ICMP6_FILTER = 1


def answers(host: IPv6Address, source: IPv6Address, seconds: float = 1.0) -> bool | None:
    """Whether a reply comes within a time to one of two requests; None: this process may not send any (CAP_NET_RAW)."""
    number = os.getpid() & 0xFFFF
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            only_replies = ~(1 << (_REPLY & 31)) & 0xFFFFFFFF
            blocks = [0xFFFFFFFF] * 8
            blocks[_REPLY >> 5] = only_replies
            raw.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocks))
            raw.bind((str(source), 0))
            for sequence in range(2):
                raw.sendto(_ECHO.pack(_REQUEST, 0, 0, number, sequence), (str(host), 0))
                if _is_replied(raw, host, number, time.monotonic() + seconds / 2):
                    return True
    except PermissionError:
        return None
    except OSError:
        return False  # no way there
    return False


def _is_replied(raw: socket.socket, host: IPv6Address, number: int, deadline: float) -> bool:
    while (left := deadline - time.monotonic()) > 0:
        raw.settimeout(left)
        try:
            reply, sender = raw.recvfrom(2048)
        except TimeoutError:
            return False
        if len(reply) >= _ECHO.size and _ECHO.unpack_from(reply)[3] == number and IPv6Address(sender[0]) == host:
            return True
    return False
