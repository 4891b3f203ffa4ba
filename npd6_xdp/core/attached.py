# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the program may sit on an interface, as the metrics and `status` call it."""

from __future__ import annotations

import re
from enum import StrEnum

_FIRST_WITH_TCX = (6, 6)


class AttachMode(StrEnum):
    """In the driver, in the kernel's receive path, or at the ingress of tc."""

    NATIVE = "native"
    TC = "tc"
    GENERIC = "generic"

    @property
    def is_xdp(self) -> bool:
        """Whether it is one of those two that share the one place of XDP."""
        return self is not AttachMode.TC

    def words(self, verb: str = "attached") -> str:
        """That the program is attached so; with another verb, what else has become of it there."""
        return f"{verb} at tc ingress" if self is AttachMode.TC else f"XDP {verb} ({self} mode)"


class Obstacle(StrEnum):
    """What stands in the way of native mode, where `attach = "auto"` has to do without it."""

    LOSSY = "lossy"  # what XDP sends back natively would be lost
    DRIVER = "driver"  # it refuses the program, perhaps for its MTU or one of a bond's slaves
    TAKEN = "taken"  # another XDP program sits there
    TAGS = "tags"  # VLAN tags stand beside the frames, where XDP can't see them


TAGS_BESIDE = "VLAN tags stand beside the frames, where XDP can't see them"


def known_obstacle(why_lossy: str, *, tags_beside: bool = False) -> tuple[Obstacle, str] | None:
    """Why native mode isn't even asked for, by what is known of an interface beforehand; None: it is."""
    if why_lossy:
        return Obstacle.LOSSY, why_lossy
    return (Obstacle.TAGS, TAGS_BESIDE) if tags_beside else None


def has_tcx(release: str) -> bool:
    """Whether a kernel of that release has links at tc, or may have them."""
    version = re.match(r"(\d+)\.(\d+)", release)
    return version is None or (int(version[1]), int(version[2])) >= _FIRST_WITH_TCX


def attached_words(attach: str) -> str:
    """How a port is attached, by what `status` has of it; "" is not at all."""
    return AttachMode(attach).words() if attach else "not attached"
