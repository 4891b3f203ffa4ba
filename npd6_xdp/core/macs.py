# SPDX-License-Identifier: GPL-2.0-or-later
"""MAC addresses as people write them."""

from __future__ import annotations

import re

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def mac_of(text: str) -> bytes:
    """The 6 bytes of one such as 02:00:00:00:00:02. Raises ValueError if it is none."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is no MAC address")
    return bytes.fromhex(text.replace(":", ""))
