# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the kernel has no link for a program on an interface."""

from __future__ import annotations

import errno
import os
import platform

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.errors import MachineError, is_used_up, remedy
from npd6_xdp.system.bpf.others import MOST_AT_TC, OURS, program_name, programs_on


class Refused(MachineError):
    """The driver, or the kernel, can't have the program in this mode."""


class Taken(MachineError):
    """Another XDP program, not an npd6-xdp's, has the one place that XDP has on an interface."""


def refusal(code: int, ifindex: int, name: str, mode: AttachMode) -> MachineError:
    """Why the kernel has no link for a program, in one line."""
    what = "a tc program" if mode is AttachMode.TC else "an XDP program"
    if is_used_up(code):
        return MachineError(f"{name}: can't attach {what}: {remedy(OSError(code, os.strerror(code)))}")
    if code == errno.EPERM:
        return MachineError(f"{name}: not permitted to attach {what}; run as root or give CAP_NET_ADMIN and CAP_BPF")
    if mode is AttachMode.TC and code == errno.EINVAL:
        return Refused(
            f"{name}: Linux {platform.release()} has no links at tc (tcx), which are there from 6.6 on, with"
            " CONFIG_NET_XGRESS"
        )
    if mode is AttachMode.TC and code == errno.ERANGE:
        return MachineError(f"{name}: as many tc programs as can be are there already: {MOST_AT_TC}; detach one")
    if mode is AttachMode.TC:
        return Refused(f"{name}: the kernel refuses a tc program: {os.strerror(code)}")
    if code in (errno.EBUSY, errno.EEXIST):
        return _foreign_program(ifindex, name)
    return Refused(f"{name}: the driver refuses an XDP program in {mode} mode: {os.strerror(code)}")


def _foreign_program(ifindex: int, name: str) -> MachineError:
    """Who has an interface."""
    native, generic, offloaded = programs_on(ifindex)
    for mode, program in (("generic", generic), ("native", native), ("offload", offloaded)):
        if program:
            function = program_name(program)
            where = f"{name}: another XDP program is attached in {mode} mode: id {program}"
            if function in OURS:
                return MachineError(
                    f"{where} ({function}, another npd6-xdp's); detach it first, or leave this interface out"
                )
            return Taken(where + (f" ({function})" if function else ""))
    return Taken(f"{name}: another XDP program is attached")
