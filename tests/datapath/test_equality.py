# SPDX-License-Identifier: GPL-2.0-or-later
"""Both datapaths write the same advertisement, byte for byte, and scapy finds it right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from hypothesis import HealthCheck, given, note, settings

from npd6_xdp.core.config import DadPolicy, Datapath, NaSource, Vlan
from npd6_xdp.core.table import Table
from tests.datapath.harness import XDP_DROP, XDP_TX, Bench, entry, link, rule, table
from tests.frames import SETTING
from tests.judge import judge_advertisement
from tests.kinds import solicit
from tests.valid_solicitations import solicitations

EVERYTHING = (rule("::/0"),)
ANY = Vlan(any=True)
ONE_EACH = ("fe80::1", "2001:db8::1")
TWO_GLOBALS = (*ONE_EACH, "2001:db8:ffff::1")
ONLY_LINK_LOCAL = ("fe80::1",)

check = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))


def tables(own: tuple[str, ...], **keys: object) -> dict[Datapath, Table]:
    """The same configuration, in each of the two datapaths that answer."""
    return {
        datapath: table(
            entry(*EVERYTHING, vlan=ANY, datapath=datapath, **keys),
            facts=link(own),
        )
        for datapath in (Datapath.HYBRID, Datapath.PYTHON)
    }


CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "a router, source target": ((), {"router": True}),
    "no router, source target": ((), {"router": False}),
    "source interface, one address of each scope": (ONE_EACH, {"na_source": NaSource.INTERFACE}),
    "source interface, two global addresses": (TWO_GLOBALS, {"na_source": NaSource.INTERFACE}),
    "source interface, only a link-local address": (ONLY_LINK_LOCAL, {"na_source": NaSource.INTERFACE}),
    "source interface, no address": ((), {"na_source": NaSource.INTERFACE}),
    "DAD defended": ((), {"dad": DadPolicy.DEFEND}),
}


def test_both_datapaths_write_the_same_advertisement(bench: Bench) -> None:
    """In all cases, of the same frames: to make one up takes far longer than to have it answered."""
    both = {case: tables(own, **keys) for case, (own, keys) in CASES.items()}
    by_xdp = Counter[str]()

    @check
    @given(solicitations())
    def compare(frame: bytes) -> None:
        for case, using in both.items():
            note(case)
            by_xdp[case] += answer_alike(bench, case, using, frame)

    compare()
    assert {case for case in CASES if by_xdp[case] <= 10} <= {"source interface, no address"}


def answer_alike(bench: Bench, case: str, both: dict[Datapath, Table], frame: bytes) -> bool:
    """Have both answer a frame; whether XDP wrote an answer by itself."""
    own, keys = CASES[case]
    by_xdp = False
    answers: dict[Datapath, bytes] = {}
    for datapath, using in both.items():
        bench.use(using)
        action, out = bench.run(frame)
        made = bench.answers()
        if action == XDP_TX:
            assert datapath is Datapath.HYBRID
            assert not made
            by_xdp = True
            answers[datapath] = out
        elif action == XDP_DROP:
            (answers[datapath],) = made
        else:
            assert out == frame  # own, ::, a DAD probe under "ignore"
            answers[datapath] = b""
    assert answers[Datapath.HYBRID] == answers[Datapath.PYTHON]
    if answers[Datapath.HYBRID]:
        source = None
        if "na_source" in keys:
            source = expected_source(own, answers[Datapath.HYBRID])
        judge_advertisement(
            answers[Datapath.HYBRID], frame, SETTING.mac, router=keys.get("router", True), source=source
        )
    return by_xdp


def expected_source(own: tuple[str, ...], advertisement: bytes) -> bytes | None:
    """By scope, and among several the longest common prefix; independent of the datapath under test."""
    end = len(advertisement) - 32
    destination = IPv6Address(advertisement[end - 16 : end])
    link_local = destination.is_link_local or destination.is_multicast
    candidates = [IPv6Address(a) for a in own if IPv6Address(a).is_link_local == link_local]
    candidates = candidates or [IPv6Address(a) for a in own if IPv6Address(a).is_link_local]
    if not candidates:
        return None
    return min(candidates, key=lambda a: (int(a) ^ int(destination)).bit_length()).packed


def test_a_source_that_depends_on_the_asker_is_chosen_by_python(bench: Bench) -> None:
    bench.use(tables(TWO_GLOBALS, na_source=NaSource.INTERFACE)[Datapath.HYBRID])
    sources = {}
    for asker in ("2001:db8::99", "2001:db8:ffff::99"):
        action, _ = bench.run(solicit(SETTING, source=IPv6Address(asker).packed))
        assert action == XDP_DROP
        (answer,) = bench.answers()
        sources[asker] = str(IPv6Address(answer[22:38]))
    assert sources == {"2001:db8::99": "2001:db8::1", "2001:db8:ffff::99": "2001:db8:ffff::1"}
    assert bench.run(solicit(SETTING, source=IPv6Address("fe80::99").packed))[0] == XDP_TX


def test_a_new_mac_address_is_in_the_next_answer(bench: Bench) -> None:
    mac = bytes.fromhex("02aabbccddee")
    for using, expected in ((link(), SETTING.mac), (link(mac=mac), mac)):
        bench.use(table(entry(*EVERYTHING), facts=using))
        frame = solicit(replace(SETTING, mac=expected))
        action, out = bench.run(frame)
        assert action == XDP_TX
        assert out[6:12] == out[-6:] == expected
