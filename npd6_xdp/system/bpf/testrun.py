# SPDX-License-Identifier: GPL-2.0-or-later
"""BPF_PROG_TEST_RUN: runs a loaded program on bytes, or an XDP program on live frames, without its being attached.

Reached through the libbpf inside bcc's library; bcc itself binds it from 0.30 on only.
"""

from __future__ import annotations

import ctypes as ct
import os
from dataclasses import dataclass
from typing import Any

XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)
TC_NEXT, TC_SHOT, TC_REDIRECT = 0xFFFFFFFF, 2, 7  # TCX_NEXT is -1

LOOPBACK = 1
"""The loopback interface's index, in every network namespace."""

_LIVE_FRAMES = 2  # BPF_F_TEST_XDP_LIVE_FRAMES


class _Options(ct.Structure):
    """struct bpf_test_run_opts of libbpf."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("data_in", ct.c_char_p),
        ("data_out", ct.c_void_p),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("ctx_in", ct.c_void_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("repeat", ct.c_int),
        ("duration", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
        ("batch_size", ct.c_uint32),
    )


class _XdpMd(ct.Structure):
    """struct xdp_md."""

    _fields_ = (
        ("data", ct.c_uint32),
        ("data_end", ct.c_uint32),
        ("data_meta", ct.c_uint32),
        ("ingress_ifindex", ct.c_uint32),
        ("rx_queue_index", ct.c_uint32),
        ("egress_ifindex", ct.c_uint32),
    )


class _SkBuff(ct.Structure):
    """struct __sk_buff, up to what may be said of a frame before it is run."""

    _fields_ = (
        ("len", ct.c_uint32),
        ("pkt_type", ct.c_uint32),
        ("mark", ct.c_uint32),
        ("queue_mapping", ct.c_uint32),
        ("protocol", ct.c_uint32),
        ("vlan_present", ct.c_uint32),
        ("vlan_tci", ct.c_uint32),
        ("vlan_proto", ct.c_uint32),
        ("priority", ct.c_uint32),
        ("ingress_ifindex", ct.c_uint32),
        ("ifindex", ct.c_uint32),
        ("tc_index", ct.c_uint32),
        ("cb", ct.c_uint32 * 5),
    )


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a run: the last action, the frame as the last run left it, nanoseconds per run (whole ones)."""

    action: int
    frame: bytes
    nanoseconds: int


class TestRun:
    """Runs programs; its buffers are used again each time, so one thread may use it."""

    __test__ = False  # it is no test of pytest's

    def __init__(self) -> None:
        self._out = ct.create_string_buffer(1 << 14)
        self._options = _Options(sz=ct.sizeof(_Options), data_out=ct.addressof(self._out))
        import bcc

        # Not as an attribute of the library: as of 0.30 that takes bcc's own structure only.
        prototype = ct.CFUNCTYPE(ct.c_int, ct.c_int, ct.POINTER(_Options), use_errno=True)
        self._run: Any = prototype(("bpf_prog_test_run_opts", bcc.lib))

    def run(self, program: int, frame: bytes, repeat: int = 1, ifindex: int = LOOPBACK) -> Ran:
        """Run the program with this file descriptor; each run sees the frame as the one before left it.

        The frames come in by the interface `ifindex` of the calling thread's network namespace, which notices nothing.
        Raises OSError where the kernel can't: it takes frames of 14 to about 3,500 bytes.
        """
        return self._ran(program, frame, repeat, _XdpMd(data_end=len(frame), ingress_ifindex=ifindex))

    def run_tc(
        self, program: int, frame: bytes, repeat: int = 1, ifindex: int = LOOPBACK, mark: int = 0, cb: int = 0
    ) -> Ran:
        """The same for a program of tc's, which finds the mark and the first number of the control buffer as said here.

        The kernel takes no tag that stands beside the frame: a program may put one there, and then call another
        (bpf_tail_call). It takes no frame that says it is IPv6 and ends before that header does.
        """
        return self._ran(program, frame, repeat, _SkBuff(mark=mark, ifindex=ifindex, cb=(cb,)))

    def _ran(self, program: int, frame: bytes, repeat: int, context: _XdpMd | _SkBuff) -> Ran:
        options = self._options
        options.data_in, options.data_size_in, options.data_size_out = frame, len(frame), len(self._out)
        options.ctx_in, options.ctx_size_in = ct.addressof(context), ct.sizeof(context)
        options.repeat = repeat
        self._call(program, options)
        return Ran(options.retval, self._out.raw[: options.data_size_out], options.duration)

    def send(self, program: int, frame: bytes, ifindex: int, count: int, batch: int = 64) -> None:
        """Let the program make `count` real frames out of `frame`, as if they came in by an interface.

        XDP_TX sends one out of that interface. The interface must have a native XDP program, and be of the calling
        thread's network namespace.
        """
        context = _XdpMd(data_end=len(frame), ingress_ifindex=ifindex)
        options = _Options(
            sz=ct.sizeof(_Options),
            data_in=frame,
            data_size_in=len(frame),
            ctx_in=ct.addressof(context),
            ctx_size_in=ct.sizeof(context),
            repeat=count,
            flags=_LIVE_FRAMES,
            batch_size=batch,
        )
        self._call(program, options)

    def _call(self, program: int, options: _Options) -> None:
        if self._run(program, ct.byref(options)) != 0:
            raise OSError(
                ct.get_errno(), os.strerror(ct.get_errno()), f"BPF_PROG_TEST_RUN: {options.data_size_in} bytes"
            )
