# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of others on the edge's wan0, as XDP and at tc: each counts the untagged solicitations that it sees.

Those for targets of 2001:db8:4::/48 and 2001:db8:9::/48 only, which no kernel asks for by itself.
"""

from __future__ import annotations

import ctypes as ct
import os
import re
import socket
import subprocess
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from npd6_xdp.lab.topology import Topology
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc, load_function
from npd6_xdp.system.bpf.others import program_name, tc_programs
from tests.netns.wire import until

_TEXT = """
BPF_ARRAY(seen, u64, 3);

static inline __attribute__((always_inline)) void count(int who, __u16 proto, __u8 type, __u16 prefix)
{
	u64 *number = seen.lookup(&who);

	if (number && proto == 0xdd86 && type == 135 && (prefix == 0x0400 || prefix == 0x0900)) /* in network order */
		__sync_fetch_and_add(number, 1);
}

int foreign_xdp(struct xdp_md *ctx)
{
	__u16 proto, prefix;
	__u8 type;

	if (bpf_xdp_load_bytes(ctx, 66, &prefix, 2) || bpf_xdp_load_bytes(ctx, 12, &proto, 2))
		return 2;
	if (!bpf_xdp_load_bytes(ctx, 54, &type, 1))
		count(0, proto, type, prefix);
	return 2; /* XDP_PASS */
}

int foreign_tc(struct __sk_buff *skb)
{
	__u16 proto, prefix;
	__u8 type;

	if (skb->vlan_present || bpf_skb_load_bytes(skb, 66, &prefix, 2) || bpf_skb_load_bytes(skb, 12, &proto, 2))
		return -1;
	if (!bpf_skb_load_bytes(skb, 54, &type, 1))
		count(1, proto, type, prefix);
	return -1; /* TCX_NEXT */
}
"""
_XDP, _TCX_INGRESS = 37, 46


class Others:
    """They sit there while the `with` block runs: `xdp` (generic), and one at tc, which comes last where it is put.

    `interface` may name another of the edge's.
    """

    def __init__(self, topology: Topology, *, xdp: bool = True, tc: bool = True, interface: str = "wan0") -> None:
        self._topology = topology
        self._interface = interface
        self._kinds = [_XDP] * xdp + [_TCX_INGRESS] * tc
        self._lib = load_bcc().lib

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            module, function = compile_program(_TEXT, "foreign_xdp", {})
            stack.callback(module.cleanup)
            at_tc = load_function(module, "foreign_tc", load_bcc().BPF.SCHED_CLS)
            self._map = int(self._lib.bpf_table_fd(module.module, b"seen"))
            for kind in self._kinds:
                opts = (16).to_bytes(8, "little") + (2 if kind == _XDP else 0).to_bytes(8, "little")
                with self._topology.inside("edge"):
                    ifindex = socket.if_nametoindex(self._interface)
                    program = function.fd if kind == _XDP else at_tc.fd
                    link = self._lib.bpf_link_create(program, ifindex, kind, ct.create_string_buffer(opts, 16))
                assert link >= 0, os.strerror(ct.get_errno())
                stack.callback(os.close, link)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    @property
    def xdp(self) -> int:
        """How many solicitations the XDP program has seen."""
        return self._seen(0)

    @property
    def tc(self) -> int:
        """How many the one at tc has."""
        return self._seen(1)

    def _seen(self, who: int) -> int:
        value = ct.c_uint64()
        assert self._lib.bpf_lookup_elem(self._map, ct.byref(ct.c_uint32(who)), ct.byref(value)) == 0
        return value.value


def at_tc(topology: Topology, interface: str = "wan0") -> list[str]:
    """The names of the programs at an interface's tc ingress on the edge, in their order."""
    with topology.inside("edge"):
        return [program_name(program) for program in tc_programs(socket.if_nametoindex(interface))]


class Filter:
    """xdp-filter of xdp-tools on the edge: it passes what it isn't told to drop. It keeps its maps by name, so all of
    it is run in one mount namespace.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._keeper = topology.popen("edge", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf && exec sleep infinity")
        assert until(lambda: self._run("findmnt", "-t", "bpf", "/sys/fs/bpf").returncode == 0)

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self._topology.run("edge", "nsenter", "-t", str(self._keeper.pid), "-m", *argv)

    def __call__(self, *argv: str) -> str:
        done = self._run("xdp-filter", *argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refuses(self, *argv: str) -> str:
        """What it says where it can't."""
        done = self._run("xdp-filter", *argv)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def counted(self, verdict: str) -> int:
        """The packets that got a verdict."""
        found = re.search(rf"{verdict}\s+(\d+) pkts", self("status"))
        assert found is not None
        return int(found[1])
