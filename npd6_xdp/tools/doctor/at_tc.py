# SPDX-License-Identifier: GPL-2.0-or-later
"""An interface at whose tc ingress the program is to sit: whether this kernel can, and who else is there."""

from __future__ import annotations

from collections.abc import Iterator

from npd6_xdp.core.attached import AttachMode, has_tcx
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.tools.doctor import edits, running
from npd6_xdp.tools.doctor.facts import Facts, Port, Program
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn

GONE = (
    "the daemon has it as attached, and its program isn't there: somebody has just taken that off; the daemon puts it"
    " back within seconds by itself, and by a reload at once"
)
_OURS = "ns_filter_tc"  # the program's name in the kernel


def checks(facts: Facts, link: LinkFacts, port: Port, attached: str) -> Iterator[Finding]:
    """What there is to say of it. `attached`: how the daemon that answers has its program there, "" where it hasn't.

    What is XDP's alone is left out: whether the driver can, its MTU, and what sends tags beside the frames.
    """
    name = link.name
    place = edits.interface_place(facts.path, facts.text, name)
    release = facts.machine.kernel
    is_old = not has_tcx(release)
    if port.tried:
        yield fail("tc", f'{name}: {port.tried}, and attach = "tc"', *place.replace(("attach", "tc", "auto")))
    elif is_old and not attached:
        text = f'{name}: Linux {release} has no links at tc (tcx), which attach = "tc" needs: they came with 6.6'
        yield fail("tc", text, *place.replace(("attach", "tc", "auto")))
    elif attached == AttachMode.TC and _is_gone(facts, port):
        yield warn("tc", f"{name}: {GONE}", running.reload(facts))
    elif attached:
        yield ok("tc", f"{name}: the daemon's program sits at tc's ingress{_order(port.at_tc)}")
        if before := _before(port.at_tc):
            text = f"{name}: before it {_listed(before)}: what is accepted, dropped or redirected there isn't seen here"
            yield note("tc", text)
    else:
        yield ok("tc", f"{name}: by tc{', which takes the program' if port.tried == '' else ''}{_order(port.at_tc)}")
    for program in port.programs:
        yield note(
            "xdp",
            f"{name}: an XDP program sits there ({_said(program)}), which has each frame before tc: what that one drops"
            " or sends back isn't seen here",
        )
    yield ok("offload", f"{name}: at tc VLAN tags are seen wherever they stand")


def _is_gone(facts: Facts, port: Port) -> bool:
    """Whether the daemon's program isn't among those at tc, as far as this process may see them and their names."""
    may_see = facts.machine.bcc and not facts.machine.missing
    return bool(may_see) and not any(program.name in (_OURS, "") for program in port.at_tc)


def _order(programs: tuple[Program, ...]) -> str:
    """Who stands there, if there is anybody."""
    return f"; in this order: {_listed(programs)}" if programs else ""


def _before(programs: tuple[Program, ...]) -> tuple[Program, ...]:
    """Those that have each frame before the daemon's program, where it is to be seen which one that is."""
    names = [each.name for each in programs]
    return programs[: names.index(_OURS)] if _OURS in names else ()


def _listed(programs: tuple[Program, ...]) -> str:
    return ", ".join(f"id {each.id}{f' ({each.name})' if each.name else ''}" for each in programs)


def _said(program: Program) -> str:
    holders = "".join(f", {holder}, pid {pid}" for holder, pid in program.holders)
    return f"{program.mode}, id {program.id}{f', {program.name}' if program.name else ''}{holders}"
