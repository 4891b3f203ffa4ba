# SPDX-License-Identifier: GPL-2.0-or-later
"""The program's function for tc on a real interface: what BPF_PROG_TEST_RUN can't show of the frames that come there.

No daemon: the program alone, attached by a link, first of the interface's; behind it another program counts.
"""

from __future__ import annotations

import ctypes as ct
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from npd6_xdp.core.build import build
from npd6_xdp.core.config import Config, DadPolicy, Datapath, InterfaceConfig, RuleConfig, Vlan
from npd6_xdp.core.icmpv6 import NeighborSolicitation
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method, Outcome
from npd6_xdp.lab.topology import Namespace, Topology
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc, load_function
from npd6_xdp.tools.bench import UNLIMITED, Bench
from tests.frames import TAGS, TAGS_8021Q, TAGS_QINQ, ip6
from tests.kinds import KINDS, option, sllao, solicit, three_tags
from tests.netns.pieces import Pieces
from tests.netns.test_hidden_tags import tag_beside
from tests.netns.wire import EDGE, SETTING, Wire, question, until

ENDS: tuple[tuple[Namespace, str], ...] = (("upstream", "eth0"), ("edge", "wan0"))
_AROUND = """
BPF_ARRAY(seen, u64, 4);

static inline __attribute__((always_inline)) void add(int what, u64 more)
{
	u64 *number = seen.lookup(&what);

	if (number)
		__sync_fetch_and_add(number, more);
}

int nothing(struct xdp_md *ctx) { return 2; }

/* Before ours: how many frames came, and how many of them in pieces. */
int before(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	u64 size = end - data;

	add(0, 1);
	if (skb->len > size)
		add(1, 1);
	return -1;
}

/* Behind it: what it lets go on. */
int behind(struct __sk_buff *skb)
{
	add(2, 1);
	if (skb->vlan_present)
		add(3, 1);
	return -1;
}
"""
_TCX_INGRESS, _FIRST, _LAST = 46, 8, 16  # BPF_F_BEFORE, BPF_F_AFTER


class AtTc:
    """The program at the tc ingress of the edge's wan0, between one that looks before it, and one behind it."""

    def __init__(self, topology: Topology, stack: ExitStack) -> None:
        self.topology = topology
        # the kernels of both ends are wires only: nobody asks, and nobody tells
        for namespace, interface in ENDS:
            topology.sysctl(namespace, f"net/ipv6/conf/{interface}/disable_ipv6", 1)
        self._lib = load_bcc().lib
        module, _ = compile_program(_AROUND, "nothing", {})
        stack.callback(module.cleanup)
        self._map = int(self._lib.bpf_table_fd(module.module, b"seen"))
        with topology.inside("edge"):
            self.ifindex, lan = socket.if_nametoindex("wan0"), socket.if_nametoindex("lan0")
            self._facts = {"wan0": LinkFacts("wan0", self.ifindex, EDGE), "lan0": LinkFacts("lan0", lan, bytes(6))}
            self.bench = stack.enter_context(closing(Bench(self.table(), limits=UNLIMITED, ifindex=self.ifindex)))
            around = (load_function(module, name, load_bcc().BPF.SCHED_CLS).fd for name in ("before", "behind"))
            first, last = around
            for program, place in ((self.bench.ns_filter.program.tc_fd, _LAST), (first, _FIRST), (last, _LAST)):
                opts = ct.create_string_buffer((16).to_bytes(8, "little") + place.to_bytes(8, "little"), 16)
                link = self._lib.bpf_link_create(program, self.ifindex, _TCX_INGRESS, opts)
                assert link >= 0, os.strerror(ct.get_errno())
                stack.callback(os.close, link)
        self.wire = stack.enter_context(Wire(topology))
        self.pieces = stack.enter_context(Pieces(topology))

    def table(self, datapath: Datapath = Datapath.HYBRID, method: Method = Method.STATIC) -> Table:
        rule = RuleConfig("2001:db8::/32", (Prefix.of("2001:db8::/32"),), method)
        entry = InterfaceConfig(
            *("wan0", (rule,), Vlan(any=True)), datapath=datapath, dad=DadPolicy.DEFEND, events_per_source=0
        )
        return build(Config((entry,)), self._facts)

    def seen(self, what: int) -> int:
        """0: how many frames came; 1: of these, in pieces; 2: went on; 3: of these, with a tag beside them."""
        value = ct.c_uint64()
        assert self._lib.bpf_lookup_elem(self._map, ct.byref(ct.c_uint32(what)), ct.byref(value)) == 0
        return value.value

    def by_xdp(self, frame: bytes) -> tuple[int, bytes]:
        """What XDP makes of a frame that comes in by wan0."""
        with self.topology.inside("edge"):
            return self.bench.run(frame)


@pytest.fixture
def at_tc(topology: Topology) -> Iterator[AtTc]:
    with ExitStack() as stack:
        yield AtTc(topology, stack)


@pytest.mark.parametrize("is_pushed", [False, True], ids=["", "and one more that the sender's kernel puts beside it"])
def test_an_answer_leaves_with_the_tags_of_its_question_and_is_xdps_byte_for_byte(at_tc: AtTc, is_pushed: bool) -> None:
    with tag_beside(at_tc.topology, "eth0") if is_pushed else Wire(at_tc.topology) as asking:
        for name, tags in TAGS.items():
            if is_pushed and len(tags) > 4:
                continue
            asked = solicit(replace(SETTING, tags=tags))
            came = asked[:12] + (TAGS_8021Q if is_pushed else b"") + asked[12:]
            wanted = at_tc.by_xdp(came)[1]
            asking.send(asked)
            assert at_tc.wire.answer(SETTING.target, 60.0) == wanted, name
    assert at_tc.seen(2) == 0, "a question that is answered goes no further"


@pytest.mark.parametrize("datapath", [Datapath.HYBRID, Datapath.PYTHON])
def test_a_question_in_pieces_is_answered_as_one_in_one_piece_wherever_it_is_cut(
    at_tc: AtTc, datapath: Datapath
) -> None:
    at_tc.bench.use(at_tc.table(datapath))
    sent = 0
    for name, tags in TAGS.items():
        asked = solicit(replace(SETTING, tags=tags))
        end = 14 + len(tags)
        wanted = NeighborSolicitation.parse(asked)
        assert isinstance(wanted, NeighborSolicitation)
        for first in (14, end + 1, end + 6, end + 40, end + 41, 62, 63, 64, end + 63, end + 71, len(asked) - 1):
            at_tc.pieces.send(asked, first)
            sent += 1
            if datapath is Datapath.HYBRID:
                assert at_tc.wire.answer(SETTING.target, 60.0) == at_tc.by_xdp(asked)[1], (name, first)
                continue
            assert until(lambda: at_tc.seen(0) == sent)  # noqa: B023
            ((event, answer),) = [(each, at_tc.bench.responder.answer(each)) for each in at_tc.bench.events()]
            assert event.vlan_tags() == wanted.tags, (name, first)
            assert answer.frame[12:].startswith(tags + b"\x86\xdd"), (name, first)
    assert (at_tc.seen(0), at_tc.seen(1), at_tc.seen(2)) == (sent, sent, 0)


def test_every_kind_in_pieces_gets_what_it_gets_in_one_piece(at_tc: AtTc) -> None:
    """Those that are refused, and those behind extension headers, as well."""
    at_tc.bench.use(at_tc.table())
    for kind in KINDS:
        frame = kind.build(replace(SETTING, tags=TAGS_8021Q))
        with at_tc.topology.inside("edge"):
            seen, told = at_tc.bench.see(frame), len(at_tc.bench.events())
        wanted = {*seen.counted, *seen.reasons}
        before, came = at_tc.bench.totals(), at_tc.seen(0)
        at_tc.pieces.send(frame, 20)
        assert until(lambda: at_tc.seen(0) == came + 1)  # noqa: B023
        after = at_tc.bench.totals()
        assert {name for name in after if after[name] > before[name]} == wanted, kind.name
        assert len(at_tc.bench.events()) == told, kind.name


def test_what_is_no_solicitation_goes_on_in_as_many_pieces_as_it_came(at_tc: AtTc) -> None:
    """It is looked at, and not brought together: not even where its first piece has but the Ethernet header."""
    asked = solicit(SETTING)
    others = {
        "UDP": asked[:20] + b"\x11" + asked[21:],
        "an advertisement": asked[:54] + b"\x88" + asked[55:],
        "IPv4": asked[:12] + b"\x08\x00\x45" + asked[15:],
        "ARP": asked[:12] + b"\x08\x06" + asked[14:],
        "three tags": three_tags(SETTING),
    }
    sent = 0
    for first in (14, 40, 64):
        for name, frame in others.items():
            at_tc.pieces.send(frame, first)
            sent += 1
            assert until(lambda: at_tc.seen(2) == sent), (name, first)  # noqa: B023
    assert at_tc.seen(0) == sent
    assert sum(at_tc.bench.totals().values()) == 0


def test_a_question_that_is_longer_than_the_routes_mtu_is_answered_as_by_xdp(at_tc: AtTc) -> None:
    """bpf_fib_lookup() of tc compares a frame with the MTU of where the route leads, unless it is told another size."""
    topology = at_tc.topology
    for namespace, interface in ENDS:
        topology.run(namespace, "ip", "link", "set", interface, "mtu", "4000", check=True)
    topology.sysctl("edge", "net/ipv6/conf/wan0/disable_ipv6", 0)
    topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
    neighbour = ("2001:db8:1::77", "lladdr", "02:00:00:00:00:77", "dev", "lan0")  # of others, no MTU is looked at
    topology.run("edge", "ip", "neighbour", "add", *neighbour, check=True)
    at_tc.bench.use(at_tc.table(method=Method.ROUTE))
    asked = question("2001:db8:1::77", options=option(253, bytes(2038)) + sllao(SETTING.asker_mac))
    assert len(asked) > 2000
    wanted = at_tc.by_xdp(asked)[1]
    assert wanted != asked
    at_tc.wire.send(asked)
    assert at_tc.wire.answer(ip6("2001:db8:1::77"), 60.0) == wanted


def test_who_looks_at_the_port_sees_the_question_as_it_came(at_tc: AtTc) -> None:
    """Tcpdump has the same frame, before it is written over."""
    asked = solicit(replace(SETTING, tags=TAGS_QINQ))
    with Wire(at_tc.topology, "edge", "wan0") as looking:
        at_tc.wire.send(asked)
        assert at_tc.wire.answer(SETTING.target, 60.0) == at_tc.by_xdp(asked)[1]
        assert asked in list(looking.received(0.2))
    assert at_tc.bench.totals()[Outcome.ANSWERED_XDP] >= 1
