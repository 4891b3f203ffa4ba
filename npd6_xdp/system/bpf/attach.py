# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a program sits: attached to interfaces by links that the kernel undoes when this process ends."""

from __future__ import annotations

import ctypes as ct
import errno
import os
import resource
from collections.abc import Iterable
from enum import IntEnum

from npd6_xdp.core.errors import MachineError, is_used_up, remedy
from npd6_xdp.system.bpf.compiler import load_bcc

_BPF_XDP = 37  # enum bpf_attach_type
_XDP_FLAGS_SKB_MODE = 2
_XDP_FLAGS_DRV_MODE = 4
_XDP_LINK_INFO_SIZE, _XDP_LINK_IFINDEX = 24, 16  # struct bpf_link_info as far as it is used, and xdp.ifindex in it
_SPARE = 64  # file descriptors
_DETACHED = (errno.ENOLINK, errno.ENODEV)  # what a link says of an interface that is gone


class AttachMode(IntEnum):
    """Where a program sits on an interface; the values are the kernel's attach flags."""

    GENERIC = _XDP_FLAGS_SKB_MODE
    NATIVE = _XDP_FLAGS_DRV_MODE


class Refused(MachineError):
    """The driver can't have the program in this mode."""


class _LinkCreateOpts(ct.Structure):
    """struct bpf_link_create_opts of libbpf, as far as it is used; `sz` tells libbpf how far that is."""

    _fields_ = (("sz", ct.c_size_t), ("flags", ct.c_uint32))


class _XdpQueryOpts(ct.Structure):
    """struct bpf_xdp_query_opts of libbpf."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("prog_id", ct.c_uint32),
        ("drv_prog_id", ct.c_uint32),
        ("hw_prog_id", ct.c_uint32),
        ("skb_prog_id", ct.c_uint32),
        ("attach_mode", ct.c_uint8),
    )


class Links:
    """The links by which a program is attached, by interface index: their file descriptors."""

    def __init__(self) -> None:
        self._lib = load_bcc().lib
        self.fds: dict[int, int] = {}

    def close(self) -> None:
        """Detach from every interface."""
        for ifindex in tuple(self.fds):
            self.detach(ifindex)

    def attach(self, program: int, ifindex: int, name: str, mode: AttachMode) -> None:
        """Attach a program to an interface, by a link that the kernel undoes when this process ends, however it ends.

        Raises Refused if the driver can't have the program in this mode, MachineError if another program is
        there already: it is never replaced.
        """
        opts = _LinkCreateOpts(sz=ct.sizeof(_LinkCreateOpts), flags=mode)
        fd = self._lib.bpf_link_create(program, ifindex, _BPF_XDP, ct.byref(opts))
        if 0 <= fd < _first_spare():
            self.fds[ifindex] = fd
            return
        if fd >= 0:
            os.close(fd)
            code = errno.EMFILE
        else:
            code = -fd if fd < -1 else ct.get_errno()
        if is_used_up(code):
            raise MachineError(f"{name}: can't attach an XDP program: {remedy(OSError(code, os.strerror(code)))}")
        if code in (errno.EBUSY, errno.EEXIST):
            raise MachineError(
                f"{name}: {self._foreign_program(ifindex)}; detach it first, or leave this interface out"
            )
        if code == errno.EPERM:
            raise MachineError(
                f"{name}: not permitted to attach an XDP program; run as root or give CAP_NET_ADMIN and CAP_BPF"
            )
        raise Refused(f"{name}: the driver refuses an XDP program in {mode.name.lower()} mode: {os.strerror(code)}")

    def detach(self, ifindex: int) -> None:
        """Take the program off an interface; nothing happens if it isn't there."""
        fd = self.fds.pop(ifindex, None)
        if fd is not None:
            os.close(fd)

    def replace(self, program: int, before: int) -> None:
        """Replace one program of ours by another, given their descriptors; each frame is seen by one of them. Raises
        MachineError if that fails; then the old one is on all interfaces.
        """
        replaced: list[int] = []
        for ifindex, link in tuple(self.fds.items()):
            if self._lib.bpf_link_update(link, program, None) == 0:
                replaced.append(link)
            elif (code := ct.get_errno()) in _DETACHED:
                self.detach(ifindex)  # the interface has just been deleted
            else:
                for back in replaced:
                    self._lib.bpf_link_update(back, before, None)
                raise MachineError(f"interface {ifindex}: can't replace our program: {os.strerror(code)}")

    def taken_off(self, ifindexes: Iterable[int]) -> list[int]:
        """Those of the interfaces that the kernel doesn't have the program on: somebody may have taken it off by force.

        By the links' own information, which takes less than 2 us each. Where the kernel doesn't tell, it counts as
        attached.
        """
        info = ct.create_string_buffer(_XDP_LINK_INFO_SIZE)
        length = ct.byref(ct.c_uint32(_XDP_LINK_INFO_SIZE))
        where_it_sits = ct.c_uint32.from_buffer(info, _XDP_LINK_IFINDEX)  # 0 where it is taken off
        ask, link_of = self._lib.bpf_obj_get_info_by_fd, self.fds.get
        found = []
        for ifindex in ifindexes:
            link = link_of(ifindex)
            if link is None or (ask(link, info, length) == 0 and where_it_sits.value != ifindex):
                found.append(ifindex)
        return found

    def _foreign_program(self, ifindex: int) -> str:
        opts = _XdpQueryOpts(sz=ct.sizeof(_XdpQueryOpts))
        if self._lib.bpf_xdp_query(ifindex, 0, ct.byref(opts)) != 0:
            return "another XDP program is attached"
        for mode, program in (
            ("generic", opts.skb_prog_id),
            ("native", opts.drv_prog_id),
            ("offload", opts.hw_prog_id),
        ):
            if program:
                name = self._program_name(program)
                ours = ", another npd6-xdp's" if name == "ns_filter" else ""
                where = f"another XDP program is attached in {mode} mode: id {program}"
                return where + (f" ({name}{ours})" if name else "")
        return f"another XDP program is attached: id {opts.prog_id}"

    def _program_name(self, program: int) -> str:
        """The name of a loaded program; "" without CAP_SYS_ADMIN, which looking at others' takes."""
        fd = self._lib.bpf_prog_get_fd_by_id(program)
        if fd < 0:
            return ""
        info = ct.create_string_buffer(80)  # struct bpf_prog_info up to and with `name`
        length = ct.c_uint32(len(info))
        failed = self._lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length))
        os.close(fd)
        return "" if failed else info.raw[64:80].rstrip(b"\0").decode(errors="replace")


def _first_spare() -> int:
    """Descriptors from this number on aren't used for ports: clients of the metrics and the status need some, and so
    does a program that takes over. (The kernel gives the lowest free number.)
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(_SPARE, limit // 8) if limit >= 0 else 1 << 31
