# SPDX-License-Identifier: GPL-2.0-or-later
"""struct iovec and struct msghdr: to send many frames in one call, or to receive control messages with a frame."""

from __future__ import annotations

import ctypes as ct


class IoVec(ct.Structure):
    """struct iovec."""

    _fields_ = (("iov_base", ct.c_void_p), ("iov_len", ct.c_size_t))


class MsgHdr(ct.Structure):
    """struct msghdr."""

    _fields_ = (
        ("msg_name", ct.c_void_p),
        ("msg_namelen", ct.c_uint32),
        ("msg_iov", ct.c_void_p),
        ("msg_iovlen", ct.c_size_t),
        ("msg_control", ct.c_void_p),
        ("msg_controllen", ct.c_size_t),
        ("msg_flags", ct.c_int),
    )
