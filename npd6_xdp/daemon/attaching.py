# SPDX-License-Identifier: GPL-2.0-or-later
"""In which mode the program is attached to a port: by what is wished for, the driver's word, and a predecessor."""

from __future__ import annotations

import logging
from typing import NamedTuple

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Attach, Wish
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.daemon.lines import Lines
from npd6_xdp.system.bpf.attach import Refused
from npd6_xdp.system.bpf.ns_filter import NsFilter


class AttachedAs(NamedTuple):
    """`taken_over`: a predecessor's program sat there until then, and none of its frames was missed."""

    mode: AttachMode
    taken_over: bool

    def __str__(self) -> str:
        return f"{'taken over' if self.taken_over else 'attached'} {self.mode.words}"


def attach(ns_filter: NsFilter, link: LinkFacts, wished: Wish, lines: Lines) -> AttachedAs:
    """Attach. Raises MachineError if that can't be as it is wished for; what is lacking, goes to the log's lines."""
    wish, order = wished
    if wish is Attach.TC:
        try:
            return AttachedAs(AttachMode.TC, ns_filter.attach(link.ifindex, link.name, AttachMode.TC, order))
        except Refused as refused:
            raise MachineError(f'{refused}; allow attach = "auto" or "generic"') from refused
    inherited = ns_filter.inherited(link.ifindex)
    if wish is Attach.AUTO and (link.lossy or inherited is AttachMode.GENERIC):
        wish = Attach.GENERIC  # to ask the driver once more would take a predecessor's program off first
    if wish is not Attach.GENERIC:
        try:
            return AttachedAs(AttachMode.NATIVE, ns_filter.attach(link.ifindex, link.name, AttachMode.NATIVE))
        except Refused as refused:
            if wish is Attach.NATIVE:
                raise MachineError(f'{refused}; allow attach = "auto" or "generic"') from refused
            lines.add_line(logging.WARNING, f"{refused}; falling back to generic mode, which is slower")
    return AttachedAs(AttachMode.GENERIC, ns_filter.attach(link.ifindex, link.name, AttachMode.GENERIC))
