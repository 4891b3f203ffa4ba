# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads this machine's packet filters: nftables by nft(8), ip6tables of both kinds by their own tools."""

from __future__ import annotations

from contextlib import suppress

from npd6_xdp.system.firewall import find, has_nft_tables, legacy_tables, said
from npd6_xdp.tools.doctor import ip6tables, nft
from npd6_xdp.tools.doctor.facts import Firewall
from npd6_xdp.tools.doctor.ruleset import Chain

_NOT_UNDERSTOOD = (ValueError, LookupError, TypeError, AttributeError)
"""What a version of these tools that writes otherwise makes of our reading."""


def read_firewall() -> Firewall:
    """All chains that see IPv6 packets; where a tool is missing or refuses, that is said."""
    found: list[Chain] = []
    unread: list[str] = []
    bridged = _read_nftables(found, unread)
    legacy = legacy_tables()
    if legacy is None:
        unread.append("ip6tables: only root may see its tables")
    elif legacy.strip():
        tool = "ip6tables-legacy" if find("ip6tables-legacy-save") else "ip6tables"
        text, why = said(f"{tool}-save")
        try:
            found += ip6tables.chains(text, tool)
        except _NOT_UNDERSTOOD as error:
            why = str(error)
        if why:
            unread.append(f"ip6tables has the tables {', '.join(legacy.split())}, which can't be read: {why}")
    return Firewall(tuple(found), tuple(unread), bridged)


def _read_nftables(found: list[Chain], unread: list[str]) -> tuple[str, ...]:
    """Read them; what is returned are the chains of bridges, which nobody here reads."""
    has_tables = has_nft_tables()
    if has_tables is False:
        return ()
    if has_tables is None:
        unread.append("nftables: only root may see its tables")
        return ()
    text, why = said("nft", "-j", "list", "ruleset")
    if why:
        with suppress(*_NOT_UNDERSTOOD):
            _read_xtables(found)  # made of nftables, too
        unread.append(f"nftables has tables, which can't be read, other than those of ip6tables: {why}")
        return ()
    try:
        told = _read_xtables(found) if nft.has_xtables(text) else ""  # what nft shows of those lacks what it can't say
        listed, _ = said("nft", "list", "ruleset")
        found += nft.chains(text, listed, without_xtables=bool(told))
        return tuple(nft.bridged(text))
    except _NOT_UNDERSTOOD as error:
        unread.append(f"nftables has tables that can't be understood: {error}")
    return ()


def _read_xtables(found: list[Chain]) -> str:
    """Take in the chains that ip6tables has made of nftables, by its own tool; what that says."""
    tool = "ip6tables-nft" if find("ip6tables-nft-save") else "ip6tables"
    told, _ = said(f"{tool}-save")
    found += ip6tables.chains(told, tool)
    return told
