# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of two edges is active: what says so, as `active_with` and `link_address` have it, and what it means here."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

_MOST = 4096  # of them that are known in parts: an entry each


class RoleAddress(NamedTuple):
    """An address that makes an entry active where this machine holds it, on any interface, or on `interface` only.

    A link-local one means nothing without its link (RFC 4007 §6), so it has one.
    """

    address: IPv4Address | IPv6Address
    interface: str = ""

    def __str__(self) -> str:
        """As the configuration has it; the same for all ways to write it."""
        return f"{self.address}%{self.interface}" if self.interface else str(self.address)


class MacDevice(NamedTuple):
    """A MAC address that a device on an interface has which is up, so what is sent there is taken in (J6)."""

    ifindex: int
    mac: bytes


Held = frozenset[str | MacDevice]
"""What this machine has of what entries are active with: role addresses, as they are written, and such devices."""


@lru_cache(_MOST)
def role_address(text: str) -> RoleAddress:
    """The address that an InterfaceConfig.active_with is. ValueError where it is none."""
    address, _, interface = text.partition("%")
    return RoleAddress(ip_address(address), interface)


def role_text(active_with: str, *, active: bool) -> str:
    """The role of an entry, in words; "" where it has none."""
    if not active_with:
        return ""
    return f"active: {active_with} is on this machine" if active else f"on standby: {active_with} isn't on this machine"


def lack_text(port: str, mac: bytes) -> str:
    """Why an entry stands by on a port where no device takes in what is sent to its link_address."""
    return f"no device on {port} has its link_address, {mac.hex(':')}, and is up"
