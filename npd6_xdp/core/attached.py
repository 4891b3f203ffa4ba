# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the program may sit on an interface, as the metrics and `status` call it."""

from __future__ import annotations

from enum import StrEnum


class AttachMode(StrEnum):
    """In the driver, in the kernel's receive path, or at the ingress of tc."""

    NATIVE = "native"
    TC = "tc"
    GENERIC = "generic"

    @property
    def words(self) -> str:
        """How it is attached, behind that word."""
        return "by tc" if self is AttachMode.TC else f"in {self} mode"


def attached_words(attach: str) -> str:
    """How a port is attached, by what `status` has of it; "" is not at all."""
    return f"attached {AttachMode(attach).words}" if attach else "not attached"
