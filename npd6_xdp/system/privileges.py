# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process may do, and what holds what on the machine: capabilities, limits, links of BPF programs, clock."""

from __future__ import annotations

import ctypes as ct
import os
import re
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
CAP_IPC_LOCK, CAP_SYS_ADMIN = 14, 21  # SYS_ADMIN includes the two newer ones below
CAPABILITIES = {
    "CAP_BPF": (39, CAP_SYS_ADMIN),
    "CAP_NET_ADMIN": (12,),
    "CAP_PERFMON": (38, CAP_SYS_ADMIN),
    "CAP_NET_RAW": (13,),
}
"""What `run` needs, each with the numbers that do."""
NUMBERS = {
    "CAP_IPC_LOCK": CAP_IPC_LOCK,
    "CAP_SYS_ADMIN": CAP_SYS_ADMIN,
    **{name: own for name, (own, *_) in CAPABILITIES.items()},
}
"""Of all capabilities that decide here."""
_VERSION_3 = 0x20080522  # of struct __user_cap_header_struct
_LINK = re.compile(r"^link_type:\txdp$", re.MULTILINE)
_STA_UNSYNC = 0x40


def missing_capabilities() -> tuple[str, ...]:
    """Those of CAPABILITIES that this process lacks."""
    lines = (_PROC / "self/status").read_text().splitlines()
    return lacking(next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")))


def lacking(effective: int) -> tuple[str, ...]:
    """Those of CAPABILITIES that who has these lacks: a bit each, by its number."""
    return tuple(name for name, bits in CAPABILITIES.items() if not any(effective >> bit & 1 for bit in bits))


def confine(capabilities: int, memory: int) -> None:
    """Leave this process no more than these capabilities, and RLIMIT_MEMLOCK (bytes; -1: no limit), or as near to that
    as it may come: in a container systemd may not raise it, either. For a child, since it can't get back what it gives
    up. Raises OSError.
    """
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (memory, memory))
    except ValueError:
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    header, data = (ct.c_uint32 * 2)(_VERSION_3, 0), (ct.c_uint32 * 6)(low, low, 0, high, high, 0)
    if ct.CDLL(None, use_errno=True).capset(header, data) < 0:
        raise OSError(code := ct.get_errno(), os.strerror(code))


def locked_memory() -> int:
    """RLIMIT_MEMLOCK in bytes; -1: no limit."""
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]


def holders_of_program(program: int) -> tuple[tuple[str, int], ...]:
    """The processes that hold a link by which an XDP program (by its id) is attached: names and process ids."""
    return tuple(sorted(set(_holders(re.compile(rf"^prog_id:\t{program}$", re.MULTILINE)))))


def _holders(wanted: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or isn't ours to look at
            for info in (process / "fdinfo").iterdir():
                with suppress(OSError):  # it was closed
                    text = info.read_text()
                    if wanted.search(text) and _LINK.search(text):
                        yield (process / "comm").read_text().strip(), int(process.name)


def is_clock_synchronised() -> bool | None:
    """Whether the kernel believes that its clock is kept right; None: it doesn't say."""

    class Timex(ct.Structure):
        """struct timex up to `status`, and space for the rest."""

        _fields_ = (
            ("modes", ct.c_uint),
            ("offset", ct.c_long),
            ("freq", ct.c_long),
            ("maxerror", ct.c_long),
            ("esterror", ct.c_long),
            ("status", ct.c_int),
            ("rest", ct.c_char * 256),
        )

    now = Timex()
    if ct.CDLL(None, use_errno=True).adjtimex(ct.byref(now)) < 0:
        return None
    return not now.status & _STA_UNSYNC
