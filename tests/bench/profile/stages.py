# SPDX-License-Identifier: GPL-2.0-or-later
"""The XDP program by stages: frames that end one stage later each, so that the differences are the stages.

Its two ways by themselves: of the program as it is, a frame that leaves the short way begins anew on the long one, and
has gone both. And what spares the short way its look-ups, taken away one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from scapy.layers.inet import TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether

from npd6_xdp.core.icmpv6 import checksum
from npd6_xdp.core.table import Table
from npd6_xdp.core.verdict import Method
from npd6_xdp.system.bpf.testrun import XDP_PASS, XDP_TX
from tests.bench import variants
from tests.bench.plan import Run
from tests.bench.profile.page import Section
from tests.bench.program import Harness, Repeats, Vary, bare_program, one_prefix
from tests.bench.results import middle
from tests.datapath.harness import entry, rule, table
from tests.frames import SETTING
from tests.fuzz.mutants import SHORT_WAY
from tests.kinds import solicit

_REPEATS = Repeats(21, 100_000)
_HOP_LIMIT, _CHECKSUM, _OPTION_LENGTH = 14 + 7, 14 + 40 + 2, 14 + 40 + 24 + 1
_TABLE = table(entry(rule("2001:db8::/32"), rule("2001:db9::/32", Method.IGNORE)))

Lines = tuple[tuple[str, str], ...]

_NO_SHORT_WAY: Lines = ((SHORT_WAY.old, SHORT_WAY.new),)
_NO_LONG_WAY: Lines = (
    ("return action == NOT_PLAIN ? ns_handle(p) : action;", "return action == NOT_PLAIN ? XDP_PASS : action;"),
)
_UNCOUNTED: Lines = (
    ("entry_counter = entry_counters.lookup(&by.id);", "entry_counter = NULL;"),
    ("rule_counter = rule_counters.lookup(&rule_id);", "rule_counter = NULL;"),
    ("if (!entry_counter || !rule_counter || !plain_answer(", "if (!plain_answer("),
    (
        "\tentry_counter->outcome[OUTCOME_ANSWERED_XDP]++;\n\trule_counter->outcome[OUTCOME_ANSWERED_XDP]++;\n",
        "",
    ),
)
_HASHED: Lines = (("\tif (!f->tags) {\n\t\tindex = ifindex % PORT_PLACES;", "\tif (false) {\n\t\tindex = 0;"),)
_UNFILTERED: Lines = (("if (!is_filtered_out(entry->exact_filter, target))", "if (true)"),)
_IN_TRIE: Lines = (("if (entry->has_only)", "if (false)"),)
_NO_LOOK_UP: Lines = (
    (
        "\tentry = plain_entry(p, &f, &seen);\n",
        "\tstruct answerer any = {};\n\n\tplain_write(&f, any.mac, 0);\n\treturn XDP_TX;\n",
    ),
)
_VARIANTS: dict[str, Lines] = {
    "checked and written, with no look-up at all": _NO_LOOK_UP,
    "the program as it is": (),
    "but that nothing is counted": _UNCOUNTED,
    "the entry from the hash, not from an array by the port's index": _HASHED,
    "and no filter: the hash is asked for the very address": (*_HASHED, *_UNFILTERED),
    "and the only prefix from the trie, not from the entry": (*_HASHED, *_UNFILTERED, *_IN_TRIE),
    "all by the long way": _NO_SHORT_WAY,
}


@dataclass(frozen=True, slots=True)
class Stage:
    """What the program does for a frame beyond what it did for the one before it."""

    name: str
    ends: str
    frame: bytes
    action: int = XDP_PASS


def sections(run: Run, repeats: Repeats = _REPEATS) -> list[Section]:
    return [
        by_stages(run, "The XDP program's long way, by stages", _long_way(), _TABLE, _NO_SHORT_WAY, repeats),
        by_stages(run, "The XDP program's short way, by stages", _short_way(), one_prefix(), _NO_LONG_WAY, repeats),
        _sparing(run, repeats),
    ]


def by_stages(run: Run, title: str, stages: Sequence[Stage], wanted: Table, lines: Lines, repeats: Repeats) -> Section:
    """One way of the program, of which the other is taken out by changing these lines."""
    rows, raw = [], dict[str, float]()
    with ExitStack() as stack:
        subject = stack.enter_context(variants.without(lines, wanted)).ns_filter.program.fd
        bare = stack.enter_context(bare_program())
        before = 0.0
        for stage in stages:
            with closing(Harness(Vary.FIXED, 1, stage.frame)) as harness:
                cost = harness.cost(subject, bare, stage.action, repeats)
            of_bare = middle(cost.bare)
            taken = cost.median - before
            rows.append((stage.name, stage.ends, *_cells(taken, of_bare), *_cells(cost.median, of_bare)))
            raw[f"{stage.ends}, ns over the bare program"] = cost.median
            raw[f"{stage.ends}, the bare program in the harness, ns"] = of_bare
            before = cost.median
            run.say(f"stages: {stage.ends}: {cost.median:+.1f} ns")
    notes = [
        f"the bare program takes {of_bare:.0f} ns there (BPF_PROG_TEST_RUN, the frame written anew, a tail call)",
        "a stage is a difference of two figures, each of which may be some off: it depends on where maps come to lie",
    ]
    return Section(title, ("stage", "seen by", "ns", "x bare", "in sum", "x bare"), rows, notes, raw)


def _sparing(run: Run, repeats: Repeats) -> Section:
    """An answer by programs that lack one thing more each."""
    rows, raw = [], dict[str, float]()
    with bare_program() as bare:
        for name, lines in _VARIANTS.items():
            with variants.without(lines) as bench:
                cost = variants.cost(bench, bare, repeats)
            rows.append((name, *_cells(cost.median, middle(cost.bare))))
            raw |= {f"{name}, ns": cost.median, f"{name}: the bare program, ns": middle(cost.bare)}
            run.say(f"an answer, {name}: {cost.median:+.1f} ns")
    return Section("An answer without what spares it", ("an answer, static, untagged", "ns", "x bare"), rows, [], raw)


def _cells(nanoseconds: float, bare: float) -> tuple[str, str]:
    return f"{nanoseconds:.1f}", f"{nanoseconds / bare:.2f}"


def _long_way() -> list[Stage]:
    valid = _solicitation("2001:db8::42")
    return [
        *_foreign(),
        Stage(
            "scratch; the entry looked up and copied; counted",
            "an NS with hop limit 254",
            _with(valid, _HOP_LIMIT, 254),
        ),
        Stage("message copied, checksum", "a wrong checksum", _with(valid, _CHECKSUM, valid[_CHECKSUM] ^ 1)),
        Stage("target, source, first option", "an option of length 0", _mended(_with(valid, _OPTION_LENGTH, 0))),
        Stage("the other checks; whom the frame is for", "an NS flooded to another MAC", _another_mac(valid)),
        Stage(
            "the target looked up: hash (address), trie (prefix)",
            "a target that no rule covers",
            _solicitation("2001:dba::42"),
        ),
        Stage("the rule's counter", "a rule that says ignore", _solicitation("2001:db9::42")),
        Stage("advertisement written, its checksum", "an answer", valid, XDP_TX),
    ]


def _short_way() -> list[Stage]:
    valid = _solicitation("2001:db8::42")
    return [
        *_foreign(),
        Stage("headers, option, checksum", "a wrong checksum", _with(valid, _CHECKSUM, valid[_CHECKSUM] ^ 1)),
        Stage(
            "the entry by the port's place; whom the frame is for", "an NS flooded to another MAC", _another_mac(valid)
        ),
        Stage("the filter, the only prefix", "a target that no rule covers", _solicitation("2001:dba::42")),
        Stage("the place once more, two counters, the advertisement", "an answer", valid, XDP_TX),
    ]


def _foreign() -> list[Stage]:
    tcp = bytes(_link() / IPv6(src="2001:db8::1", dst="2001:db8:1::42") / TCP() / bytes(12))
    echo = bytes(_link() / IPv6(src="2001:db8::1", dst="2001:db8:1::42") / ICMPv6EchoRequest(data=bytes(24)))
    return [
        Stage("parse: Ethernet, IPv6", "TCP over IPv6", tcp),
        Stage("parse: ICMPv6 type", "an echo request", echo),
    ]


def _link() -> Ether:
    return Ether(dst=SETTING.mac.hex(":"), src=SETTING.asker_mac.hex(":"))


def _solicitation(target: str) -> bytes:
    return solicit(replace(SETTING, target=IPv6Address(target).packed))


def _another_mac(frame: bytes) -> bytes:
    return bytes.fromhex("020000000077") + frame[6:]


def _with(frame: bytes, offset: int, value: int) -> bytes:
    return frame[:offset] + bytes([value]) + frame[offset + 1 :]


def _mended(frame: bytes) -> bytes:
    """With a checksum that is right."""
    frame = frame[:_CHECKSUM] + bytes(2) + frame[_CHECKSUM + 2 :]
    right = checksum(frame[22:38], frame[38:54], frame[54:])
    return frame[:_CHECKSUM] + right.to_bytes(2, "big") + frame[_CHECKSUM + 2 :]
