# SPDX-License-Identifier: GPL-2.0-or-later
"""The configurations that frames run through, each with the machine that it is on: its file's text, and what is there.

The program gets the text by way of npd6_xdp, the reference by way of `scene.py`, which reads it by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PORTS = ("wan0", "lan0", "lan1", "wan0.100")
"""The interfaces of the machine. "wan0.100" stands in for the VLAN device 100 on wan0: what counts is its index."""
MACS = {name: bytes.fromhex(f"0200000000{number:02x}") for number, name in enumerate(PORTS, 1)}
BRIDGE_MAC = bytes.fromhex("0200000000b0")
ASKER_MACS = tuple(bytes.fromhex(f"0200000001{number:02x}") for number in range(3))
FOREIGN_MAC = bytes.fromhex("020000000099")
VLAN_DEVICE = (100,)

UNREACHABLE = ("unreachable", "blackhole", "prohibit", "lo")


@dataclass(frozen=True)
class Side:
    """What the machine has where frames with some VLAN ids come in: addresses with prefix lengths, and routers."""

    own: tuple[str, ...] = ()
    next_hops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """A configuration file and a machine.

    `sides` are those of wan0, by VLAN ids; `lan` are the addresses on lan0. `known` has the hosts that are there by a
    rule's prefix, those whose entry is stale with a "?" behind. `routes` lead to an interface, or one of UNREACHABLE.
    `kept` is what the kernel said about targets on wan0's untagged entry, where only that can tell.
    `answered` were answered lately there: budgets of new targets are spent for good, so that no time is in it.
    `held` are the addresses of `active_with` that it has.
    `refused_askers` may have nothing resolved there (b"" is all). On a guarded port tags may stand beside the frames,
    on a silent one they do (core/hidden.py). Where nobody `reads` the ring, what goes up is lost.
    """

    name: str
    toml: str
    sides: Mapping[tuple[int, ...], Side] = field(default_factory=lambda: {(): Side()})
    has_vlan_device: bool = False
    is_bridge_port: bool = False
    lan: tuple[str, ...] = ()
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, bool] = field(default_factory=dict)
    answered: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    refused_askers: tuple[bytes, ...] = ()
    is_guarded: bool = False
    """Tags may stand beside the frames; not so under tc, which sees them."""
    is_silent: bool = False
    is_read: bool = True
    ports: tuple[str, ...] = ("wan0",)


_WAN = Side(("fe80::1/64", "2001:db8:1::1/64", "2001:db8:ee::1/128"), ("2001:db8:1::fe", "fe80::fe", "2001:db8:2::fe"))

_NESTED = """
    [[interface.rule]]
    prefix = "2001:db8::/32"
    method = "ignore"
    [[interface.rule]]
    prefix = "2001:db8:1::/64"
    method = "static"
    exclude = ["::1000/116", "::42", "2001:db8:1::ff00-2001:db8:1::ff43"]
    [[interface.rule]]
    prefix = "2001:db8:1::1200/120"
    method = "static"
    router = false
    dad = "defend"
    [[interface.rule]]
    prefix = "2001:db8:1::ff42"
    method = "static"
    [[interface.rule]]
    prefix = "2001:db8:2::/48"
    method = "static"
    include = ["::10-::1f", "::1:0/112", "2001:db8:2:7::/64"]
    exclude = ["::15", "2001:db8:2:7::8/125"]
    [[interface.rule]]
    prefix = "2001:db8:2:7:8000::/65"
    method = "ignore"
    [[interface.rule]]
    prefix = "2001:db8:3::5-2001:db8:3::1:2"
    method = "static"
    [[interface.rule]]
    prefix = "2001:db8:1:1::1"
    method = "static"
    [[interface.rule]]
    prefix = "fe80::42"
    method = "static"
"""

_METHODS = """
    [[interface.rule]]
    prefix = "2001:db8:4::/48"
    method = "neighbour"
    via = ["lan0"]
    exclude = ["::66"]
    [[interface.rule]]
    prefix = "2001:db8:4:1::/64"
    method = "neighbour"
    via = ["lan1", "lan0"]
    dad = "defend"
    router = false
    [[interface.rule]]
    prefix = "2001:db8:5::/64"
    method = "kernel"
    [[interface.rule]]
    prefix = "2001:db8:5:0:8000::/65"
    method = "kernel"
    dad = "defend"
    [[interface.rule]]
    prefix = "2001:db8:6::/48"
    method = "route"
    [[interface.rule]]
    prefix = "2001:db8:6:8000::/49"
    method = "route"
    via = ["lan1"]
    dad = "defend"
    [[interface.rule]]
    prefix = "2001:db8:7::/64"
    method = "static"
    [[interface.rule]]
    prefix = "2001:db8:7::7"
    method = "neighbour"
    via = ["lan0"]
"""
_KNOWN = {
    "2001:db8:4::/48": ("2001:db8:4::1", "2001:db8:4::2?", "2001:db8:4::66", "2001:db8:4:1::1"),
    "2001:db8:4:1::/64": ("2001:db8:4:1::2", "2001:db8:4:1::3?", "2001:db8:4::3"),
    "2001:db8:5::/64": ("2001:db8:5::1", "2001:db8:5::2?", "2001:db8:5:0:8000::1"),
}
_ROUTES = {
    "2001:db8:6::/48": "lan0",
    "2001:db8:6:1::/64": "lan1",
    "2001:db8:6:2::/64": "wan0",
    "2001:db8:6:3::/64": "unreachable",
    "2001:db8:6:4::/64": "blackhole",
    "2001:db8:6:5::/64": "prohibit",
    "2001:db8:6:6::/64": "lo",
    "2001:db8:6:7::/64": "wan0.100",
    "2001:db8:6:1::99/128": "wan0",
    "2001:db8:6:8000::/50": "lan1",
    "2001:db8:6:9000::/52": "unreachable",
}
_MACHINE: dict[str, Any] = {
    "known": _KNOWN,
    "routes": _ROUTES,
    "lan": ("fe80::a/64", "2001:db8:4::a/64", "2001:db8:5::a/128"),
}
_MACHINE_SIDE: dict[tuple[int, ...], Side] = {
    (): Side(("fe80::1/64", "2001:db8:ee::1/64"), ("2001:db8:4::fe", "2001:db8:6::fe"))
}


def _interface(rules: str, name: str = "wan0", **keys: str | int) -> str:
    """An [[interface]] with no limit for a source, which would be one of time."""
    lines = [
        f'name = "{name}"',
        "events_per_source = 0",
        *(f"{key} = {json.dumps(value)}" for key, value in keys.items()),
    ]
    return "[[interface]]\n" + "\n".join(lines) + rules


_ALL = '\n    [[interface.rule]]\n    prefix = "2001:db8::/32"\n    method = "static"\n'
_ANYTHING = _ALL.replace("2001:db8::/32", "::/0")
_VLAN_NEIGHBOUR = """
    [[interface.rule]]
    prefix = "2001:db8:4::/48"
    method = "neighbour"
    via = ["lan0"]
    [[interface.rule]]
    prefix = "2001:db8:5::/64"
    method = "kernel"
    [[interface.rule]]
    prefix = "2001:db8:6::/48"
    method = "route"
"""
_MANY = "".join(
    f'\n    [[interface.rule]]\n    prefix = "2001:db8:{number:x}{rest}"\n    method = "{method}"'
    f"\n    router = {'true' if number % 3 else 'false'}\n"
    for rest, method in (("::/48", "static"), (":8000::/49", "ignore"), (":100::/56", "static"))
    for number in range(0x100, 0x150)
)
_BOTH_WAYS = '\n    [[interface.rule]]\n    prefix = "2001:db8:{}::/48"\n    method = "neighbour"\n    via = ["{}"]\n'

CONFIGURATIONS: tuple[Configuration, ...] = (
    Configuration("static", _interface(_NESTED), {(): _WAN}),
    Configuration(
        "python",
        _interface(_NESTED, datapath="python", na_source="interface", dad="defend"),
        {(): Side((*_WAN.own, "2001:db8:ffff::1/64"), _WAN.next_hops)},
    ),
    Configuration("methods", _interface(_METHODS), _MACHINE_SIDE, **_MACHINE),
    Configuration("defend", _interface(_METHODS, datapath="python", dad="defend"), _MACHINE_SIDE, **_MACHINE),
    Configuration("monitor", _interface(_METHODS + _NESTED, datapath="monitor"), _MACHINE_SIDE, **_MACHINE),
    Configuration(
        "vlan",
        _interface(_VLAN_NEIGHBOUR + _ALL)
        + _interface(_VLAN_NEIGHBOUR + _ALL, vlan="100", na_source="interface")
        + _interface(_ALL, vlan="100.7", dad="defend")
        + _interface(_VLAN_NEIGHBOUR, vlan="200", na_source="interface")
        + _interface(_NESTED, vlan="any", na_source="interface"),
        {
            (): Side(("2001:db8:1::1/64", "fe80::1/64"), ("2001:db8:2::fe",)),
            VLAN_DEVICE: Side(("fe80::64/64", "2001:db8:64::1/64"), ("2001:db8:3::fe",)),
        },
        has_vlan_device=True,
        **_MACHINE,
    ),
    Configuration("bridge", _interface(_METHODS + _ALL), _MACHINE_SIDE, is_bridge_port=True, **_MACHINE),
    Configuration(
        "kept",
        _interface(_METHODS),
        _MACHINE_SIDE,
        kept={"2001:db8:6::1": True, "2001:db8:6::2": False, "2001:db8:6:8000::1": True},
        **_MACHINE,
    ),
    Configuration(
        "heard",
        _interface(_BOTH_WAYS.format(4, "lan0") + _ALL, dad="defend")
        + _interface(_BOTH_WAYS.format(5, "wan0") + _ALL, "lan0"),
        _MACHINE_SIDE,
        known={"2001:db8:4::/48": ("2001:db8:4::1", "2001:db8:4::2?"), "2001:db8:5::/48": ("2001:db8:5::1",)},
        ports=("wan0", "lan0"),
    ),
    Configuration("many", _interface(_MANY), {(): _WAN}),
    Configuration("only", _interface(_ANYTHING) + _interface(_ALL, vlan="100.7"), {(): _WAN}),
    Configuration(
        "crowded", _interface(_METHODS), _MACHINE_SIDE, is_bridge_port=True, refused_askers=(ASKER_MACS[0],), **_MACHINE
    ),
    Configuration("refused", _interface(_METHODS, datapath="python"), _MACHINE_SIDE, refused_askers=(b"",), **_MACHINE),
    Configuration(
        "budget",
        _interface(_METHODS, new_targets_per_second=1)
        + _interface(_METHODS + _ALL, vlan="100", new_targets_per_second=1),
        _MACHINE_SIDE,
        is_bridge_port=True,
        answered=("2001:db8:7::1", "2001:db8:6::1", "2001:db8:6:6::1", "2001:db8:6:8000::5", "2001:db8:5::3"),
        **_MACHINE,
    ),
    Configuration(
        "standby",
        _interface(_METHODS, active_with="192.0.2.1", dad="defend")
        + _interface(_METHODS + _ALL, vlan="100", active_with="192.0.2.2")
        + _interface(_METHODS, vlan="any", active_with="192.0.2.1", datapath="monitor"),
        _MACHINE_SIDE,
        is_bridge_port=True,
        held=("192.0.2.2",),
        **_MACHINE,
    ),
    Configuration("guarded", _interface(_NESTED) + _interface(_ALL, vlan="100"), {(): _WAN}, is_guarded=True),
    Configuration(
        "silent",
        _interface(_METHODS + _ALL, vlan="any") + _interface(_ALL, vlan="200"),
        _MACHINE_SIDE,
        is_silent=True,
        **_MACHINE,
    ),
    Configuration("lost", _interface(_METHODS + _ALL), _MACHINE_SIDE, is_bridge_port=True, is_read=False, **_MACHINE),
)
NAMES = tuple(each.name for each in CONFIGURATIONS)

LARGEST = (
    _interface(_MANY + _METHODS + _BOTH_WAYS.format(8, "lan0"), new_targets_per_second=1, active_with="192.0.2.1")
    + _interface(_BOTH_WAYS.format(9, "wan0"), "lan0")
    + "".join(_interface(_METHODS, vlan=str(number)) for number in range(1, 6))
)
"""What a program has to be loaded with to have space for each of them."""
