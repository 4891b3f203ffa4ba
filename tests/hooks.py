# SPDX-License-Identifier: GPL-2.0-or-later
"""The program's two functions on one bench: frames go in by XDP or tc; what comes of them is said in XDP's words."""

from __future__ import annotations

import ctypes as ct
from enum import Enum
from typing import Any

from npd6_xdp.core.table import Table
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc, load_function
from npd6_xdp.system.bpf.testrun import TC_NEXT, TC_REDIRECT, TC_SHOT, XDP_DROP, XDP_PASS, XDP_TX
from npd6_xdp.tools.bench import Bench as ByXdp

_TPIDS = (b"\x81\x00", b"\x88\xa8")
_MACS, _BEHIND_TAG = 12, 16
SMALLEST = 60
"""Bytes of a frame that the kernel's BPF_PROG_TEST_RUN takes for tc, whatever its EtherType is, and some more."""
_ACTIONS = {TC_NEXT: XDP_PASS, TC_SHOT: XDP_DROP, TC_REDIRECT: XDP_TX}
_PUSH = """
BPF_PROG_ARRAY(next, 1);

int nothing(struct xdp_md *ctx) { return 2; }

/*
 * Cuts what was added to a frame that is too short for BPF_PROG_TEST_RUN, puts the tag that the mark says beside it,
 * as the kernel does before tc has it, and goes on to the next program.
 */
int push(struct __sk_buff *skb)
{
	u32 tag = skb->mark, length = skb->cb[0];

	if (length && bpf_skb_change_tail(skb, length, 0))
		return 1;
	if (tag && bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff))
		return 1;
	next.call(skb, 0);
	return 1;
}
"""


class Hook(Enum):
    """Where frames go in."""

    XDP = "XDP"
    TC = "tc, tags in the frame"
    BESIDE = "tc, the first tag beside the frame"


class Pusher:
    """A program of tc's that runs another one with a frame's first tag beside it, or with a frame that has no whole
    IPv6 header: the kernel's BPF_PROG_TEST_RUN has neither.
    """

    def __init__(self) -> None:
        self._module, _ = compile_program(_PUSH, "nothing", {})
        self.fd = int(load_function(self._module, "push", load_bcc().BPF.SCHED_CLS).fd)
        self._next = -1

    def run_into(self, function: int) -> None:
        """From now on, the other one is that of this descriptor."""
        if function != self._next:
            self._module[b"next"][ct.c_int(0)] = ct.c_int(function)
            self._next = function

    def close(self) -> None:
        """Give it back."""
        self._module.cleanup()


class Bench(ByXdp):
    """The bench; frames go in by `hook`. One with a tag beside it is given, and comes back, with that in its place."""

    def __init__(self, table: Table, **keys: Any) -> None:
        self.hook = Hook.XDP
        self._pusher: Pusher | None = None
        super().__init__(table, **keys)

    def close(self) -> None:
        """Give back all."""
        if self._pusher is not None:
            self._pusher.close()
        super().close()

    def run(self, frame: bytes) -> tuple[int, bytes]:
        """The action in XDP's words, and the frame as the program left it."""
        if self.hook is Hook.XDP:
            return super().run(frame)
        is_beside = self.hook is Hook.BESIDE and frame[_MACS : _MACS + 2] in _TPIDS and len(frame) >= _BEHIND_TAG + 2
        tag = frame[_MACS:_BEHIND_TAG] if is_beside else b""
        if not tag and len(frame) >= SMALLEST:
            ran = self._runs.run_tc(self.ns_filter.program.tc_fd, frame, ifindex=self._ifindex)
            return _ACTIONS[ran.action], ran.frame
        if self._pusher is None:
            self._pusher = Pusher()
        self._pusher.run_into(self.ns_filter.program.tc_fd)
        within = frame[:_MACS] + frame[_MACS + len(tag) :]
        ran = self._runs.run_tc(
            *(self._pusher.fd, within.ljust(SMALLEST, b"\0")),
            ifindex=self._ifindex,
            mark=int.from_bytes(tag),
            cb=len(within) if len(within) < SMALLEST else 0,
        )
        return _ACTIONS[ran.action], ran.frame[:_MACS] + tag + ran.frame[_MACS:]
