# SPDX-License-Identifier: GPL-2.0-or-later
"""The sysctl proxy_ndp: whether the kernel answers by its own proxy entries, where it is to, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from npd6_xdp.core.names import word
from npd6_xdp.core.proxy_entries import proxying_interfaces
from npd6_xdp.core.table import Decision, Match
from npd6_xdp.tools.doctor import running
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn

_CHECK = "proxy_ndp"
_NOBODY = "the kernel has no entry there, and answers for nobody"


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of it: for each interface that questions come in by, if anything is on or needed."""
    if running.is_of_another_file(facts):
        return  # what that one needs of the kernel isn't known here
    needed = proxying_interfaces(facts.table)
    found = [
        finding
        for ifindex in sorted({each.l3_ifindex for each in facts.table.entries.values()})
        for finding in (
            _wanted(facts, ifindex) if ifindex in needed else _unwanted(facts, ifindex) if not needed else ()
        )
    ]
    if not needed and not facts.proxies and _is(facts, "all", "1"):
        found.append(note(_CHECK, f"it is 1 for all, and nothing needs it: {_NOBODY}", _set("all", 0)))
    yield from found
    if not found:
        yield ok(_CHECK, "the kernel answers for nobody by itself where questions come in")


def _wanted(facts: Facts, ifindex: int) -> Iterator[Finding]:
    """The daemon sets both, and again every few seconds: `all` is for questions to one address (ip6_forward)."""
    name = facts.name(ifindex)
    if facts.status is None:
        yield ok(_CHECK, f"{name}: the daemon sets it, for method kernel")
        return
    off = [each for each in (name, "all") if _is(facts, each, "0")]
    if off:
        text = f"{name}: it is 0 for {' and '.join(off)}, so the kernel doesn't answer for what method kernel has found"
        yield fail(_CHECK, text, *(_set(each, 1) for each in off))
    else:
        yield ok(_CHECK, f"{name}: on, for method kernel")


def _unwanted(facts: Facts, ifindex: int) -> Iterator[Finding]:
    """Where no rule at all is of method kernel."""
    name = facts.name(ifindex)
    on = [each for each in (name, "all") if _is(facts, each, "1")]
    if not on:
        return
    here = [address for where, address in facts.proxies if where == name]
    covered = [each for each in here if _is_covered(facts, ifindex, each)]
    is_shared = len(here) < len(facts.proxies)  # by entries of another interface, which may need `all`
    mends = [_set(each, 0) for each in on if each == name or not is_shared]
    text = f"{name}: it is 1 for {' and '.join(on)}"
    if covered:
        number = f"{len(covered)} entr{'y' if len(covered) == 1 else 'ies'} of somebody else's that rules cover, too"
        more = "" if len(covered) == len(here) else "; other entries there need it, so see proxy_entries"
        yield warn(_CHECK, f"{text}: the kernel answers for {number}{more}", *(() if more else mends))
    elif here:
        yield ok(_CHECK, f"{text}: the kernel answers for others than rules do")
    elif name in on:
        yield note(_CHECK, f"{name}: it is 1, and nothing needs it: {_NOBODY}", _set(name, 0))


def _is_covered(facts: Facts, ifindex: int, address: IPv6Address) -> bool:
    return any(
        entry.l3_ifindex == ifindex
        and isinstance(match := facts.table.lookup(entry.id, address), Match)
        and match.decision > Decision.IGNORE
        for entry in facts.table.entries.values()
    )


def _is(facts: Facts, name: str, value: str) -> bool:
    return facts.sysctls.get(f"conf/{name}/proxy_ndp") == value


def _set(name: str, value: int) -> str:
    return f"sysctl -w {word(f'net/ipv6/conf/{name}/proxy_ndp={value}')}"
