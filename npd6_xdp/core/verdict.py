# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a solicitation, and why: the words that the XDP program, Python and the metrics share.

The values are the metric labels (a contract). The order is the wire order: the n-th member is number n in the
enums of bpf/shared.h, which a test compares with these line by line.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of one Neighbor Solicitation; each gets exactly one."""

    ANSWERED_XDP = "answered_xdp"
    ANSWERED_PYTHON = "answered_python"
    KERNEL = "kernel"
    ABSENT = "absent"
    PENDING = "pending"
    OWN = "own"
    IGNORED = "ignored"
    UNMATCHED = "unmatched"
    DAD = "dad"
    INVALID = "invalid"
    RATE_LIMITED = "rate_limited"
    MONITORED = "monitored"
    LOST = "lost"
    FAILED = "failed"
    STANDBY = "standby"


class Reason(StrEnum):
    """Why a solicitation is invalid: the first check that fails, in this order (RFC 4861 §7.1.1, RFC 6980 §5)."""

    FRAGMENT = "fragment"
    LENGTH = "length"
    HOP_LIMIT = "hop_limit"
    CODE = "code"
    CHECKSUM = "checksum"
    TARGET = "target"
    SOURCE = "source"
    OPTION_LENGTH = "option_length"
    DAD_DESTINATION = "dad_destination"
    DAD_SLLAO = "dad_sllao"


class Limit(StrEnum):
    """Which limit was in a solicitation's way that is `rate_limited`; each such has exactly one."""

    SOURCE = "source"
    """events_per_source: what one source MAC address may send up to Python."""
    ALL = "all"
    """limits.events_per_second: what all of them may."""
    PENDING = "pending"
    """limits.pending, or what the kernel's table has space for: so many targets are pending."""
    CROWDED = "crowded"
    """The share that one entry, or one asker, has of that; or so many wait for the same target."""
    FULL = "full"
    """limits.neighbours: so many hosts are there."""
    NEW_TARGET = "new_target"
    """new_targets_per_second: so many targets were answered that hadn't been lately."""


class Method(StrEnum):
    """How a rule decides whether a target is there (docs/configuration.md, "Methods")."""

    STATIC = "static"
    ROUTE = "route"
    NEIGHBOUR = "neighbour"
    KERNEL = "kernel"
    IGNORE = "ignore"
