# SPDX-License-Identifier: GPL-2.0-or-later
"""A tc program that has another one see each frame, by a tail call.

The kernel has no program twice at an interface's tc, so one that goes to another place there is in both by this.
"""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from npd6_xdp.system.bpf.compiled import INSTRUCTION, Function, Map, create_map, load_code

_PROG_ARRAY = 3  # BPF_MAP_TYPE_PROG_ARRAY
_SCHED_CLS = 3  # BPF_PROG_TYPE_SCHED_CLS
_TAIL_CALL = 12  # BPF_FUNC_tail_call, of the frame (r1), a map (r2) and a number (r3)
_NUMBER = ct.c_uint32(0)


@contextmanager
def relay_to(lib: Any, program: int) -> Iterator[int]:
    """The descriptor of one, for that of a tc program, while the block runs. Nothing is seen by the other any more when
    it ends, wherever this one sits. Raises OSError.
    """
    array = _checked(create_map(lib, Map("relay", _PROG_ARRAY, 4, 4, 1, 0, "")))
    try:
        value = ct.c_uint32(program)
        _checked(lib.bpf_update_elem(array, ct.byref(_NUMBER), ct.byref(value), 0))
        code = b"".join(
            INSTRUCTION.pack(*each)
            for each in (
                (0x18, 0x12, 0, array),  # r2 = the map, an instruction twice as long
                (0, 0, 0, 0),
                (0xB7, 0x03, 0, 0),  # r3 = 0
                (0x85, 0x00, 0, _TAIL_CALL),  # which comes back only if it fails
                (0xB7, 0x00, 0, -1),  # TCX_NEXT
                (0x95, 0x00, 0, 0),
            )
        )
        fd = _checked(load_code(lib, Function("ns_filter_tc", _SCHED_CLS, code), code, "GPL", 0))
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        os.close(array)


def _checked(result: int) -> int:
    if result < 0:
        code = ct.get_errno()
        raise OSError(code, os.strerror(code))
    return result
