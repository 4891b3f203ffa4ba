# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a program sits: attached to interfaces by links, which the kernel undoes when nobody holds them any more."""

from __future__ import annotations

import ctypes as ct
import errno
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import TcOrder
from npd6_xdp.core.errors import MachineError
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.others import BPF_TCX_INGRESS, other_of_us, programs_on, tc_programs
from npd6_xdp.system.bpf.refusals import refusal
from npd6_xdp.system.bpf.relay import relay_to

_BPF_XDP = 37  # enum bpf_attach_type
_FLAGS = {AttachMode.GENERIC: 2, AttachMode.NATIVE: 4}  # XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE
_ORDERS = {TcOrder.FIRST: 1 << 3, TcOrder.LAST: 1 << 4}  # BPF_F_BEFORE, BPF_F_AFTER: beside none, they mean all
_LINK_INFO_SIZE = 24  # struct bpf_link_info as far as it is used, and what is at which byte in it
_LINK_TYPE, _LINK_PROGRAM, _LINK_IFINDEX, _LINK_ATTACH_TYPE = 0, 8, 16, 20
_BPF_LINK_TYPE_XDP = 6
_BPF_LINK_TYPE_TCX = 11
_SPARE = 64  # file descriptors
_DETACHED = (errno.ENOLINK, errno.ENODEV)  # what a link says of an interface that is gone


class Functions(NamedTuple):
    """The descriptors of a program's functions for interfaces: of XDP, and of tc, or who loads that one by need."""

    xdp: int
    tc: int | Callable[[], int]

    def of(self, mode: AttachMode) -> int:
        """The one that sits on an interface in a mode. Raises MachineError if it can't be loaded."""
        if mode is not AttachMode.TC:
            return self.xdp
        return self.tc() if callable(self.tc) else self.tc


class _LinkCreateOpts(ct.Structure):
    """struct bpf_link_create_opts of libbpf, as far as it is used; `sz` tells libbpf how far that is."""

    _fields_ = (("sz", ct.c_size_t), ("flags", ct.c_uint32))


class _LinkInfo(NamedTuple):
    """struct bpf_link_info as far as it is used; `ifindex` is 0 once the program is taken off."""

    kind: int
    program: int
    ifindex: int
    attach_type: int


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
        self.goes_by_tc = True
        """Whether a third program is at tc while one goes from native to generic or back, where the kernel has tcx. It
        takes some hundredths of a second for that.
        """
        self._gap = 0.0
        self.fds: dict[int, int] = {}
        self._modes: dict[int, AttachMode] = {}
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
        self._modes.clear()
        self._inherited.clear()

    def let_go(self) -> list[int]:
        """Detach what was inherited and nobody has attached to: from which interfaces."""
        found = [*self._inherited]
        for ifindex in found:
            self._drop(self._inherited.pop(ifindex)[0])
        return found

    def take_gap(self) -> float:
        """The seconds for which attach() has had no program on an interface, between two modes, since this was asked
        last.
        """
        gap, self._gap = self._gap, 0.0
        return gap

    @property
    def inherits(self) -> bool:
        """Whether there is anything left of a predecessor's."""
        return bool(self._inherited)

    def inherited(self, ifindex: int) -> AttachMode | None:
        """In which mode a predecessor's program sits on an interface, by a link that attach() can take over."""
        found = self._inherited.get(ifindex)
        return None if found is None else found[1]

    def sits(self, ifindex: int) -> AttachMode | None:
        """In which mode a program of ours, or a predecessor's that attach() can take over, is on an interface."""
        if (fd := self.fds.get(ifindex)) is None:
            return self.inherited(ifindex)
        found = self._info(fd)
        if found is not None and found.ifindex != ifindex:
            self.detach(ifindex)  # somebody has taken it off
            return None
        return self._modes[ifindex]

    def attach(
        self, functions: Functions, ifindex: int, name: str, mode: AttachMode, order: TcOrder = TcOrder.FIRST
    ) -> bool:
        """Attach a program to an interface, by a link that the kernel undoes when this process ends, however it ends,
        unless a keeper holds it. Where one was inherited in the same mode, and by tc in its place among the others, the
        program takes its predecessor's place. Where one of ours, or a predecessor's, is there in another way, that one
        is let go of as soon as this one is there, and stays if this one can't be. Native and generic exclude each
        other: between them, a third one by tc has the frames, where the kernel has tcx and `goes_by_tc`. So there is no
        frame that none sees; else see take_gap(). It returns True where a predecessor's was there.

        Raises Refused if it can't be in this mode; Taken if another XDP program is there already, which is never
        replaced; MachineError if that, or one at tc, is another npd6-xdp's.
        """
        was_inherited, sits = ifindex in self._inherited, self.sits(ifindex)
        if sits is mode and (mode.is_xdp or self._stands(ifindex, order)):
            if not was_inherited or self._take_over(functions, ifindex, mode):
                return was_inherited
            was_inherited, sits = False, None
        if program := other_of_us(ifindex, mode, self._ours(ifindex)):
            raise MachineError(
                f"{name}: another npd6-xdp's program is there already: id {program}; end that one, or leave this"
                " interface out"
            )
        if sits is not None and sits.is_xdp and mode.is_xdp:
            return self._switch_xdp(functions, ifindex, name, mode, sits)
        if sits is mode and not was_inherited:
            fd = self._put_elsewhere(functions, ifindex, name, order)
        else:
            fd = self._create(functions.of(mode), ifindex, name, mode, order)
        self._leave(ifindex)
        self._holds(ifindex, fd, mode)
        self._keeper.keep(ifindex, fd)
        return was_inherited

    def _create(self, program: int, ifindex: int, name: str, mode: AttachMode, order: TcOrder = TcOrder.FIRST) -> int:
        """A link: its descriptor, which is the caller's. Raises as attach()."""
        kind = BPF_TCX_INGRESS if mode is AttachMode.TC else _BPF_XDP
        flags = _ORDERS[order] if mode is AttachMode.TC else _FLAGS[mode]
        opts = _LinkCreateOpts(sz=ct.sizeof(_LinkCreateOpts), flags=flags)
        fd = int(self._lib.bpf_link_create(program, ifindex, kind, ct.byref(opts)))
        if 0 <= fd < _first_spare():
            return fd
        if fd >= 0:
            os.close(fd)
            code = errno.EMFILE
        else:
            code = -fd if fd < -1 else ct.get_errno()
        raise refusal(code, ifindex, name, mode)

    def _switch_xdp(self, functions: Functions, ifindex: int, name: str, mode: AttachMode, before: AttachMode) -> bool:
        """From native to generic or back, as attach(): by tc in between. Where tc can't be had, or isn't to be, nobody
        sees what comes while the driver changes.
        """
        was_inherited = ifindex in self._inherited
        between = -1
        if self.goes_by_tc:
            with suppress(MachineError):
                between = self._create(functions.of(AttachMode.TC), ifindex, name, AttachMode.TC)
        began = time.monotonic()
        self._leave(ifindex)
        try:
            self._hold(functions, ifindex, name, mode)
        except MachineError:
            if not was_inherited:
                with suppress(MachineError):  # somebody else was faster: that it's taken off is seen soon
                    self._hold(functions, ifindex, name, before)
            raise
        finally:
            if between >= 0:
                self._end(between)
            else:
                self._gap += time.monotonic() - began
        return was_inherited and between >= 0

    def _hold(self, functions: Functions, ifindex: int, name: str, mode: AttachMode) -> None:
        fd = self._create(functions.of(mode), ifindex, name, mode)
        self._holds(ifindex, fd, mode)
        self._keeper.keep(ifindex, fd)

    def _put_elsewhere(self, functions: Functions, ifindex: int, name: str, order: TcOrder) -> int:
        """A link that has our program in another place at tc, where it was in one already; that one is gone."""
        program = functions.of(AttachMode.TC)
        try:
            with relay_to(self._lib, program) as relay:
                fd = self._create(relay, ifindex, name, AttachMode.TC, order)
                self._leave(ifindex)
                if self._lib.bpf_link_update(fd, program, None) == 0:
                    return fd
                code = ct.get_errno()
                self._end(fd)
        except OSError as error:
            code = error.errno or 0
        raise refusal(code, ifindex, name, AttachMode.TC)

    def _end(self, fd: int) -> None:
        self._lib.bpf_link_detach(fd)  # a keeper would hold it
        os.close(fd)

    def _leave(self, ifindex: int) -> None:
        """Let go of the link by which a program of ours, or a predecessor's, is on an interface, if there is one."""
        if ifindex in self._inherited:
            self._drop(self._inherited.pop(ifindex)[0])
        self.detach(ifindex)

    def _ours(self, ifindex: int) -> set[int]:
        """The ids of the programs that sit on an interface by links of ours, or of a predecessor's."""
        fds = [self.fds[ifindex]] if ifindex in self.fds else []
        fds += [self._inherited[ifindex][0].fd] if ifindex in self._inherited else []
        return {found.program for found in map(self._info, fds) if found is not None}

    def _holds(self, ifindex: int, fd: int, mode: AttachMode) -> None:
        self.fds[ifindex], self._modes[ifindex] = fd, mode

    def detach(self, ifindex: int) -> None:
        """Take the program off an interface; nothing happens if it isn't there."""
        fd = self.fds.pop(ifindex, None)
        self._modes.pop(ifindex, None)
        if fd is not None:
            self._end(fd)
            self._keeper.release(ifindex)

    def _take_over(self, functions: Functions, ifindex: int, mode: AttachMode) -> bool:
        """Put a program where the predecessor's sits; else that one is taken off, and whether it was the former."""
        link, _ = self._inherited.pop(ifindex)
        if self._lib.bpf_link_update(link.fd, functions.of(mode), None) == 0:
            self._holds(ifindex, link.fd, mode)
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
        found = self._info(fd)
        if found is None or found.ifindex != ifindex:
            return None
        if found.kind == _BPF_LINK_TYPE_TCX and found.attach_type == BPF_TCX_INGRESS:
            return AttachMode.TC
        if found.kind != _BPF_LINK_TYPE_XDP:
            return None
        native, generic, _ = programs_on(ifindex)
        return {native: AttachMode.NATIVE, generic: AttachMode.GENERIC}.get(found.program)

    def _info(self, fd: int) -> _LinkInfo | None:
        """What the kernel says of a link; None: it is none."""
        info = ct.create_string_buffer(_LINK_INFO_SIZE)
        if self._lib.bpf_obj_get_info_by_fd(fd, info, ct.byref(ct.c_uint32(_LINK_INFO_SIZE))) != 0:
            return None
        return _LinkInfo(
            *(
                int.from_bytes(info.raw[at : at + 4], sys.byteorder)
                for at in (_LINK_TYPE, _LINK_PROGRAM, _LINK_IFINDEX, _LINK_ATTACH_TYPE)
            )
        )

    def _stands(self, ifindex: int, order: TcOrder) -> bool:
        """Whether our program, or a predecessor's, stands at tc where an order would put it. Where the kernel doesn't
        tell, it does.
        """
        programs = tc_programs(ifindex)
        return not programs or programs[0 if order is TcOrder.FIRST else -1] in self._ours(ifindex)

    def replace(self, functions: Functions, before: Functions) -> None:
        """Replace one program of ours by another; each frame is seen by one of them. Raises MachineError if that fails;
        then the old one is on all interfaces.
        """
        replaced: list[int] = []
        for ifindex, link in tuple(self.fds.items()):
            if self._lib.bpf_link_update(link, functions.of(self._modes[ifindex]), None) == 0:
                replaced.append(ifindex)
            elif (code := ct.get_errno()) in _DETACHED:
                self.detach(ifindex)  # the interface has just been deleted
            else:
                for back in replaced:
                    self._lib.bpf_link_update(self.fds[back], before.of(self._modes[back]), None)
                raise MachineError(f"interface {ifindex}: can't replace our program: {os.strerror(code)}")

    def taken_off(self, ifindexes: Iterable[int]) -> list[int]:
        """Those of the interfaces that the kernel doesn't have the program on: somebody may have taken it off by force.

        By the links' own information, which takes less than 2 us each. Where the kernel doesn't tell, it counts as
        attached.
        """
        info = ct.create_string_buffer(_LINK_INFO_SIZE)
        length = ct.byref(ct.c_uint32(_LINK_INFO_SIZE))
        where_it_sits = ct.c_uint32.from_buffer(info, _LINK_IFINDEX)  # 0 where it is taken off
        ask, link_of = self._lib.bpf_obj_get_info_by_fd, self.fds.get
        found = []
        for ifindex in ifindexes:
            link = link_of(ifindex)
            if link is None or (ask(link, info, length) == 0 and where_it_sits.value != ifindex):
                found.append(ifindex)
        return found


def _first_spare() -> int:
    """Descriptors from this number on aren't used for ports: clients of the metrics and the status need some, and so
    does a program that takes over. (The kernel gives the lowest free number.)
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - min(_SPARE, limit // 8) if limit >= 0 else 1 << 31
