# SPDX-License-Identifier: GPL-2.0-or-later
"""Cards that keep back frames of VLANs which nobody has told them of, before any program of ours can see them.

The kernel tells a card of a VLAN when a VLAN device with its id is made on it, or when a VLAN-aware bridge is to take
it in by that port. Of entries of the configuration no card knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from npd6_xdp.core.config import Vlan
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.names import word
from npd6_xdp.core.table import Table

_MOST_NAMED = 5  # VLANs; of more, devices for all of them are no mend that anybody types
_LONGEST_NAME = 15  # bytes: IFNAMSIZ - 1


class Feature(Enum):
    """How `ethtool -k` shows a driver's feature, as rx-vlan-filter; FIXED is one that is on, and that it doesn't switch
    off.
    """

    OFF = "off"
    ON = "on"
    FIXED = "on [fixed]"


class KeptBack(NamedTuple):
    """What is kept back on a port, in one line, and the commands that mend it."""

    text: str
    mend: tuple[str, ...]

    @property
    def line(self) -> str:
        """Both, as the log has it."""
        return f"{self.text}: {'; '.join(self.mend)}"


class Trunk(NamedTuple):
    """A port with entries for tagged frames: which ids (of two tags the outer) have no VLAN device on it, in order;
    none where it is all of them, by `vlan = "any"`. `cards` are the interfaces that may filter: itself, a bond's
    slaves.
    """

    ifindex: int
    name: str
    ids: tuple[int, ...]
    cards: tuple[str, ...]


def unknown_trunks(table: Table, links: Mapping[str, LinkFacts]) -> list[Trunk]:
    """The ports with entries for VLANs that their cards may not know.

    A port of a bridge is none: the bridge has it promiscuous, or says itself which VLANs it takes in. `vlan = "any"` is
    no reason where there are VLAN devices: those are the ones that are in use here, as far as anybody can tell.
    """
    vlans: defaultdict[int, set[Vlan]] = defaultdict(set)
    for entry in table.entries.values():
        if entry.spoken and entry.vlan.has_tagged:
            vlans[entry.ifindex].add(entry.vlan)
    names = {link.ifindex: link.name for link in links.values()} if vlans else {}
    found = []
    for link in links.values():
        if link.ifindex in vlans and not link.bridge and link.kind in ("", "bond"):
            known = {tags[0] for tags in link.l3 if tags}
            ids = {vlan.tags[0] for vlan in vlans[link.ifindex] if vlan.tags} - known
            if ids or (not known and any(vlan.any for vlan in vlans[link.ifindex])):
                own = () if link.kind else (link.name,)
                cards = (*own, *(names[lower] for lower in link.lower if lower in names))
                found.append(Trunk(link.ifindex, link.name, tuple(sorted(ids)), cards))
    return sorted(found)


def kept_back(
    trunk: Trunk, filter_of: Callable[[str], Feature], is_promiscuous: Callable[[int], bool]
) -> KeptBack | None:
    """What a trunk's cards may keep back; None: nothing. A promiscuous card takes in all, by most drivers."""
    filters = {card: filter_of(card) for card in trunk.cards}
    if all(each is Feature.OFF for each in filters.values()) or is_promiscuous(trunk.ifindex):
        return None
    which, name, such = "all frames with a tag", trunk.name, ""
    if trunk.ids:
        more, such = len(trunk.ids) - _MOST_NAMED, "such "
        named = ", ".join(map(str, trunk.ids[:_MOST_NAMED]))
        which = f"frames of VLAN {named}{f' and {more} more' if more > 0 else ''}"
    text = (
        f"{name}: the card's VLAN filter is on (rx-vlan-filter), so it may keep back {which}, since there is no"
        f" {such}VLAN device on {name}"
    )
    return KeptBack(text, tuple(_mend(trunk, filters)))


def _mend(trunk: Trunk, filters: Mapping[str, Feature]) -> Iterable[str]:
    """Devices of a few VLANs, which the kernel needs for what is sent to the hosts there, too; else no filter."""
    name = trunk.name
    if 0 < len(trunk.ids) <= _MOST_NAMED:
        for vid in trunk.ids:
            device = f"{name}.{vid}" if len(f"{name}.{vid}") <= _LONGEST_NAME else f"vlan{vid}"
            yield f"ip link add link {word(name)} name {word(device)} up type vlan id {vid}"
    elif Feature.FIXED in filters.values():
        yield f"ip link set dev {word(name)} promisc on"
    else:
        for card, found in filters.items():
            if found is Feature.ON:
                yield f"ethtool -K {word(card)} rx-vlan-filter off"
