# SPDX-License-Identifier: GPL-2.0-or-later
"""In which mode the program is attached to a port: by what is wished for, the driver's word, and a predecessor."""

from __future__ import annotations

import logging
from typing import NamedTuple

from npd6_xdp.core.attached import AttachMode, Obstacle, known_obstacle
from npd6_xdp.core.config import Attach, TcOrder, Wish
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.daemon.lines import Lines
from npd6_xdp.system.bpf.ns_filter import NsFilter
from npd6_xdp.system.bpf.refusals import Refused, Taken

MOST_BY_AUTO = 32
"""Ports that `auto` puts at tc, where they can be generic, too. For each, the kernel waits until no CPU is in what was
there before, 10 to 30 ms with its lock on all interfaces held, when the program comes and when it goes: with thousands,
a start or an end would take minutes. From several threads it takes as long, since they wait for that lock.
"""
CROWDED = f"{MOST_BY_AUTO} ports are at tc already, and each takes the kernel some hundredths of a second"
_SLOWER = "falling back to generic mode, which is slower"
_LEAVE = "detach it first, or leave this interface out"
_BESIDE = 'detach it first, leave this interface out, or write attach = "auto" to sit beside it by tc (Linux 6.6)'


class AttachedAs(NamedTuple):
    """`taken_over`: a predecessor's program sat there until then, and none of its frames was missed.

    Under `attach = "auto"`, where it isn't native: `obstacle` and `why_not_native` say what that is for; and where it
    is generic, `why_not_tc` does.
    """

    mode: AttachMode
    taken_over: bool
    why_not_native: str = ""
    obstacle: Obstacle | None = None
    why_not_tc: str = ""

    @property
    def why(self) -> str:
        """Why it isn't better than it is; "" where nothing could be."""
        return "; ".join(filter(None, (self.why_not_native, self.why_not_tc)))

    def __str__(self) -> str:
        return self.mode.words("taken over" if self.taken_over else "attached")


def attach(ns_filter: NsFilter, link: LinkFacts, wished: Wish, lines: Lines, *, is_crowded: bool = False) -> AttachedAs:
    """Attach, also in another way than it is, as Links.attach(). Raises MachineError if that can't be as it is wished
    for; what is lacking, goes to the log's lines.

    Under `auto` it is native, else by tc, else generic. `is_crowded`: MOST_BY_AUTO ports are at tc, so that another one
    is only if it can't be generic either.
    """
    if wished.attach is Attach.AUTO:
        return _attach_at_best(ns_filter, link, wished.tc_order, lines, is_crowded=is_crowded)
    mode = AttachMode(wished.attach)
    try:
        return AttachedAs(mode, ns_filter.attach(link.ifindex, link.name, mode, wished.tc_order))
    except Taken as taken:
        raise MachineError(f"{taken}; {_BESIDE}") from taken
    except Refused as refused:
        others = '"auto"' if mode is AttachMode.GENERIC else '"auto" or "generic"'
        raise MachineError(f"{refused}; allow attach = {others}") from refused


def try_native(ns_filter: NsFilter, link: LinkFacts, order: TcOrder) -> AttachedAs | tuple[Obstacle, str]:
    """Attach natively, or say what stands in the way: then all is as it was."""
    try:
        return AttachedAs(AttachMode.NATIVE, ns_filter.attach(link.ifindex, link.name, AttachMode.NATIVE, order))
    except Refused as refused:
        return Obstacle.DRIVER, _without_name(refused, link)
    except Taken as taken:
        return Obstacle.TAKEN, _without_name(taken, link)


def _attach_at_best(
    ns_filter: NsFilter, link: LinkFacts, order: TcOrder, lines: Lines, *, is_crowded: bool
) -> AttachedAs:
    known, inherited = known_obstacle(link.why_lossy), ns_filter.inherited(link.ifindex)
    if known is None and inherited is AttachMode.GENERIC:
        # to ask the driver once more would take the predecessor's program off first
        known = Obstacle.DRIVER, "a predecessor has found the driver to refuse an XDP program"
    found = known or try_native(ns_filter, link, order)
    if isinstance(found, AttachedAs):
        return found
    obstacle, why = found
    if is_crowded and obstacle is not Obstacle.TAKEN and ns_filter.sits(link.ifindex) is not AttachMode.TC:
        try:
            return _as_generic(ns_filter, link, order, why, obstacle, CROWDED)
        except Taken as taken:
            obstacle, why = Obstacle.TAKEN, _without_name(taken, link)
    try:
        return AttachedAs(AttachMode.TC, ns_filter.attach(link.ifindex, link.name, AttachMode.TC, order), why, obstacle)
    except Refused as refused:
        no_tc = _without_name(refused, link)
    if obstacle is Obstacle.TAKEN:
        raise MachineError(f"{link.name}: {why}; {_LEAVE}: {no_tc}")
    if known is None:
        lines.add_line(logging.WARNING, f"{link.name}: {why}; {_SLOWER}", ifindex=link.ifindex, error=why)
    try:
        return _as_generic(ns_filter, link, order, why, obstacle, no_tc)
    except Taken as taken:
        raise MachineError(f"{taken}; {_LEAVE}: {no_tc}") from taken


def _as_generic(
    ns_filter: NsFilter, link: LinkFacts, order: TcOrder, why: str, obstacle: Obstacle, no_tc: str
) -> AttachedAs:
    taken_over = ns_filter.attach(link.ifindex, link.name, AttachMode.GENERIC, order)
    return AttachedAs(AttachMode.GENERIC, taken_over, why, obstacle, no_tc)


def _without_name(error: MachineError, link: LinkFacts) -> str:
    return str(error).removeprefix(f"{link.name}: ")
