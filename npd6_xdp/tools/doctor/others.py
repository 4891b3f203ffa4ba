# SPDX-License-Identifier: GPL-2.0-or-later
"""Others on this machine that answer for the same targets: daemons, and the kernel's own proxy."""

from __future__ import annotations

from collections.abc import Iterator

from npd6_xdp.core.entries import Entry
from npd6_xdp.core.names import word
from npd6_xdp.core.table import Decision, Match
from npd6_xdp.tools.doctor import networkd
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, note, ok, warn

_MOST_NAMED = 8


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of them."""
    for name, pid, unit in facts.daemons:
        if name == "odhcpd":
            yield note(
                "others",
                f"odhcpd runs here (pid {pid}): it answers, too, where its ndp is relay or hybrid: write"
                " option ndp 'disabled' for that interface in /etc/config/dhcp; then: service odhcpd reload",
            )
            continue
        stop = f"systemctl disable --now {word(unit)}" if unit.startswith(name) else f"kill {pid}"
        yield warn("others", f"{name} runs here (pid {pid}): two that answer on one link are a mistake", stop)
    yield from networkd.checks(facts)
    if not facts.daemons:
        yield ok("others", "no npd6, ndppd or odhcpd runs here")
    entries: dict[str, list[Entry]] = {}
    for each in facts.table.entries.values():
        entries.setdefault(facts.name(each.l3_ifindex), []).append(each)
    foreign = [
        f"ip -6 neigh del proxy {address} dev {word(name)}"
        for name, address in facts.proxies
        for entry in entries.get(name, ())
        if isinstance(match := facts.table.lookup(entry.id, address), Match) and match.decision > Decision.IGNORE
    ]
    if foreign:
        number = f"{len(foreign)} entr{'y' if len(foreign) == 1 else 'ies'}"
        yield warn(
            "proxy_entries",
            f"the kernel's own proxy has {number} that rules cover: who is asked there may answer twice",
            *dict.fromkeys(foreign[:_MOST_NAMED]),
        )
    else:
        yield ok("proxy_entries", "the kernel's own proxy has none that a rule covers")
