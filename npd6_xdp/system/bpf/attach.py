# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a program sits: attached to interfaces by links, which the kernel undoes when nobody holds them any more."""

from __future__ import annotations

import ctypes as ct
import errno
import os
import resource
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from npd6_xdp.core.errors import MachineError, is_used_up, remedy
from npd6_xdp.core.link_messages import get_link, parse_link
from npd6_xdp.core.rtnetlink import Type, messages
from npd6_xdp.system.bpf.compiler import load_bcc

_BPF_XDP = 37  # enum bpf_attach_type
_XDP_FLAGS_SKB_MODE = 2
_XDP_FLAGS_DRV_MODE = 4
_XDP_LINK_INFO_SIZE = 24  # struct bpf_link_info as far as it is used, and what is at which byte in it
_LINK_TYPE, _LINK_PROGRAM, _XDP_LINK_IFINDEX = 0, 8, 16
_BPF_LINK_TYPE_XDP = 6
_SPARE = 64  # file descriptors
_LINK_BYTES = 1 << 16  # of what the kernel tells of one link: a few thousand
_PATIENCE = 1.0  # seconds; it answers at once
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


class Inherited(NamedTuple):
    """A link that was held for a predecessor, by what its holder says: the interface, a descriptor that is whoever's it
    is given to, and its name there. `is_wanted`: whether its program may go on until another takes its place.
    """

    ifindex: int
    fd: int
    name: str
    is_wanted: bool = True


class Keeper:
    """Who holds links besides, so that they outlive this process. This one holds none."""

    inherited: Sequence[Inherited] = ()
    """What was held for a predecessor. Of each, adopt() or drop() is called once."""

    def keep(self, ifindex: int, fd: int) -> None:
        """Hold a link from now on."""

    def adopt(self, link: Inherited) -> None:
        """One that was inherited is held for this process from now on."""

    def drop(self, link: Inherited) -> None:
        """Hold one that was inherited no longer."""

    def release(self, ifindex: int) -> None:
        """Hold the link of an interface no longer, whether it was kept or adopted."""


class Links:
    """The links by which a program is attached, by interface index: their file descriptors.

    Those that a keeper has for a predecessor go on answering by its program, until attach() puts another there or
    let_go() ends them.
    """

    def __init__(self, keeper: Keeper | None = None) -> None:
        self._lib = load_bcc().lib
        self._keeper = keeper or Keeper()
        self.fds: dict[int, int] = {}
        self._inherited: dict[int, tuple[Inherited, AttachMode]] = {}
        for link in self._keeper.inherited:
            mode = self._mode(link.fd, link.ifindex)
            if mode is not None and link.is_wanted:
                self._inherited[link.ifindex] = link, mode
            else:
                self._drop(link, detach=mode is not None)

    def close(self, *, leave: bool = False) -> None:
        """Detach from every interface. Or let the keeper hold them alone, inherited ones as well: whoever's program
        sits there goes on.
        """
        if not leave:
            for ifindex in tuple(self.fds):
                self.detach(ifindex)
        for fd in (*self.fds.values(), *(link.fd for link, _ in self._inherited.values())):
            os.close(fd)
        self.fds.clear()
        self._inherited.clear()

    def let_go(self) -> list[int]:
        """Detach what was inherited and nobody has attached to: from which interfaces."""
        found = [*self._inherited]
        for ifindex in found:
            self._drop(self._inherited.pop(ifindex)[0])
        return found

    @property
    def inherits(self) -> bool:
        """Whether there is anything left of a predecessor's."""
        return bool(self._inherited)

    def inherited(self, ifindex: int) -> AttachMode | None:
        """In which mode a predecessor's program sits on an interface, by a link that attach() can take over."""
        found = self._inherited.get(ifindex)
        return None if found is None else found[1]

    def attach(self, program: int, ifindex: int, name: str, mode: AttachMode) -> bool:
        """Attach a program to an interface, by a link that the kernel undoes when this process ends, however it ends,
        unless a keeper holds it. Where one was inherited in the same mode, the program takes its predecessor's place,
        with no frame in between that neither sees: then it returns True.

        Raises Refused if the driver can't have the program in this mode, MachineError if another program is
        there already: it is never replaced.
        """
        if ifindex in self._inherited and self._take_over(program, ifindex, mode):
            return True
        opts = _LinkCreateOpts(sz=ct.sizeof(_LinkCreateOpts), flags=mode)
        fd = self._lib.bpf_link_create(program, ifindex, _BPF_XDP, ct.byref(opts))
        if 0 <= fd < _first_spare():
            self.fds[ifindex] = fd
            self._keeper.keep(ifindex, fd)
            return False
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
            self._lib.bpf_link_detach(fd)  # a keeper would hold it
            os.close(fd)
            self._keeper.release(ifindex)

    def _take_over(self, program: int, ifindex: int, mode: AttachMode) -> bool:
        """Put a program where the predecessor's sits; else that one is taken off, and whether it was the former."""
        link, sits = self._inherited.pop(ifindex)
        if sits is mode and self._lib.bpf_link_update(link.fd, program, None) == 0:
            self.fds[ifindex] = link.fd
            self._keeper.adopt(link)
            return True
        self._drop(link)
        return False

    def _drop(self, link: Inherited, *, detach: bool = True) -> None:
        """Let go of what was inherited, which isn't to be detached where it is something else."""
        if detach:
            self._lib.bpf_link_detach(link.fd)
        os.close(link.fd)
        self._keeper.drop(link)

    def _mode(self, fd: int, ifindex: int) -> AttachMode | None:
        """In which mode the program of a link sits on an interface; None if it isn't such a link, or sits elsewhere."""
        info = ct.create_string_buffer(_XDP_LINK_INFO_SIZE)
        if self._lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(ct.c_uint32(_XDP_LINK_INFO_SIZE))) != 0:
            return None
        kind, program, place = (
            int.from_bytes(info.raw[at : at + 4], sys.byteorder)
            for at in (_LINK_TYPE, _LINK_PROGRAM, _XDP_LINK_IFINDEX)
        )
        if kind != _BPF_LINK_TYPE_XDP or place != ifindex:
            return None
        native, generic, _ = _programs_on(ifindex)
        return {native: AttachMode.NATIVE, generic: AttachMode.GENERIC}.get(program)

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
        native, generic, offloaded = _programs_on(ifindex)
        for mode, program in (("generic", generic), ("native", native), ("offload", offloaded)):
            if program:
                name = program_name(program)
                ours = ", another npd6-xdp's" if name == "ns_filter" else ""
                where = f"another XDP program is attached in {mode} mode: id {program}"
                return where + (f" ({name}{ours})" if name else "")
        return "another XDP program is attached"


def program_name(program: int) -> str:
    """The name of a loaded program, by its id; "" without CAP_SYS_ADMIN, which looking at others' takes."""
    lib = load_bcc().lib
    fd = lib.bpf_prog_get_fd_by_id(program)
    if fd < 0:
        return ""
    info = ct.create_string_buffer(80)  # struct bpf_prog_info up to and with `name`
    length = ct.c_uint32(len(info))
    failed = lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(length))
    os.close(fd)
    return "" if failed else info.raw[64:80].rstrip(b"\0").decode(errors="replace")


def _programs_on(ifindex: int) -> tuple[int, int, int]:
    """The ids of the programs that sit on an interface: native, generic, offloaded; 0 is none, or it isn't known.

    libbpf's bpf_xdp_query() has the kernel tell of all links for each that it is asked about: with 4,000 ports that
    took longer than a start may.
    """
    with suppress(OSError), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(_PATIENCE)
        asking.sendto(get_link(1, ifindex), (0, 0))
        for message in messages(asking.recv(_LINK_BYTES)):
            if message.type == Type.NEWLINK and (link := parse_link(message.body)) is not None:
                return link.xdp
    return 0, 0, 0


def _first_spare() -> int:
    """Descriptors from this number on aren't used for ports: clients of the metrics and the status need some, and so
    does a program that takes over. (The kernel gives the lowest free number.)
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(_SPARE, limit // 8) if limit >= 0 else 1 << 31
