# SPDX-License-Identifier: GPL-2.0-or-later
"""The XDP program by stages: frames that end one stage later each, so that the differences are the stages."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from npd6_xdp.core.icmpv6 import checksum
from npd6_xdp.core.verdict import Method
from npd6_xdp.system.bpf.testrun import XDP_PASS, XDP_TX
from tests.bench.plan import Run
from tests.bench.profile.page import Section
from tests.bench.program import Harness, Repeats, Vary, bare_program, cost_of_a_frame, loaded
from tests.bench.results import middle
from tests.datapath.harness import entry, rule, table
from tests.frames import SETTING
from tests.kinds import solicit

_REPEATS = Repeats(21, 100_000)
_HOP_LIMIT, _CHECKSUM, _OPTION_LENGTH = 14 + 7, 14 + 40 + 2, 14 + 40 + 24 + 1
_TABLE = table(entry(rule("2001:db8::/32"), rule("2001:db9::/32", Method.IGNORE)))


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the program does for a frame beyond what it did for the one before it."""

    name: str
    ends: str
    frame: bytes
    action: int = XDP_PASS


def sections(run: Run) -> list[Section]:
    rows, raw = [], {}
    with ExitStack() as stack:
        subject = stack.enter_context(loaded(_TABLE)).ns_filter.program.fd
        bare = stack.enter_context(bare_program())
        loop = middle(cost_of_a_frame(subject, bare, _foreign(), _REPEATS).bare)
        before, harness_share = 0.0, 0.0
        for stage in _stages():
            with closing(Harness(Vary.FIXED, 1, stage.frame)) as harness:
                cost = harness.cost(subject, bare, stage.action, _REPEATS)
            rows.append((stage.name, stage.ends, f"{cost.median - before:.1f}", f"{cost.median:.1f}"))
            raw[f"{stage.ends}, ns over the bare program"] = cost.median
            before, harness_share = cost.median, middle(cost.bare)
            run.say(f"stages: {stage.ends}: {cost.median:+.1f} ns")
    raw |= {"bare program in the harness, ns": harness_share, "bare program, ns": loop}
    whole = harness_share + before
    notes = [
        f"beside these: the bare program takes {loop:.0f} ns (BPF_PROG_TEST_RUN itself), and {harness_share:.0f} ns in"
        f" the harness (the frame written anew, a tail call); so of the {whole:.0f} ns of a run that answers, the"
        f" program's share is {100 * before / whole:.0f} %",
        "a stage is a difference of two figures, each of which may be ten off: it depends on where maps come to lie",
    ]
    return [Section("The XDP program, by stages", ("stage", "seen by", "ns", "cumulative"), rows, notes, raw)]


def _stages() -> list[_Stage]:
    valid = _solicitation("2001:db8::42")
    return [
        _Stage("parse: Ethernet, IPv6", "TCP over IPv6", _foreign()),
        _Stage("parse: ICMPv6 type", "an echo request", _foreign_icmpv6()),
        _Stage(
            "scratch, entry and counter looked up; hop limit; counting",
            "an NS with hop limit 254",
            _with(valid, _HOP_LIMIT, 254),
        ),
        _Stage("message copied, checksum", "a wrong checksum", _with(valid, _CHECKSUM, valid[_CHECKSUM] ^ 1)),
        _Stage("target, source, first option", "an option of length 0", _mended(_with(valid, _OPTION_LENGTH, 0))),
        _Stage(
            "the other checks; whom the frame is for",
            "an NS flooded to another MAC",
            bytes.fromhex("020000000077") + valid[6:],
        ),
        _Stage(
            "the target looked up: hash (address), trie (prefix)",
            "a target that no rule covers",
            _solicitation("2001:dba::42"),
        ),
        _Stage("the rule's counter", "a rule that says ignore", _solicitation("2001:db9::42")),
        _Stage("advertisement written, its checksum", "an answer", valid, XDP_TX),
    ]


def _solicitation(target: str) -> bytes:
    return solicit(replace(SETTING, target=IPv6Address(target).packed))


def _with(frame: bytes, offset: int, value: int) -> bytes:
    return frame[:offset] + bytes([value]) + frame[offset + 1 :]


def _mended(frame: bytes) -> bytes:
    """With a checksum that is right."""
    frame = frame[:_CHECKSUM] + bytes(2) + frame[_CHECKSUM + 2 :]
    right = checksum(frame[22:38], frame[38:54], frame[54:])
    return frame[:_CHECKSUM] + right.to_bytes(2, "big") + frame[_CHECKSUM + 2 :]


def _foreign() -> bytes:
    return bytes(_link() / IPv6(src="2001:db8::1", dst="2001:db8:1::42") / TCP() / bytes(12))


def _foreign_icmpv6() -> bytes:
    return bytes(_link() / IPv6(src="2001:db8::1", dst="2001:db8:1::42") / ICMPv6EchoRequest(data=bytes(24)))


def _link() -> Ether:
    return Ether(dst=SETTING.mac.hex(":"), src=SETTING.asker_mac.hex(":"))
