# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp probe`: asks for an address from the upstream's side of the link, and reads what comes back (scapy)."""

from __future__ import annotations

import json
import socket
import time
from ipaddress import IPv6Address
from typing import Any

from scapy.config import conf
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    in6_chksum,
)
from scapy.layers.l2 import Ether
from scapy.utils6 import in6_getnsma, in6_getnsmac

from npd6_xdp.core.errors import MachineError

WAIT = 1.0
"""Seconds to wait for each answer: RetransTimer, RFC 4861 §10."""
INTERVAL = 1.0
"""Seconds from one question to the next."""


def run(address: IPv6Address, interface: str, count: int, *, as_json: bool) -> int:
    """Ask `count` times and print each answer; returns 0 if there was any answer, else 1."""
    if address.is_multicast or address.is_unspecified:
        raise MachineError(f"{address} is no target: nobody has it as an address of its own (RFC 4861 §7.1.1)")
    asker = _Asker(interface)
    answers = []
    due = time.monotonic()
    try:
        for _ in range(count):
            time.sleep(max(0.0, due - time.monotonic()))
            due += INTERVAL
            answer = asker.ask(address)
            answers.append(answer)
            if not as_json:
                print(_line(address, answer), flush=True)
    finally:
        asker.close()
    received = [answer for answer in answers if answer is not None]
    if as_json:
        summary = {"target": str(address), "interface": interface, "sent": count, "received": len(received)}
        print(json.dumps({**summary, "answers": answers}, indent=2))
    elif count > 1:
        print(f"{count} asked, {len(received)} answered")
    return 0 if received else 1


class _Asker:
    """A packet socket on one interface, and the addresses to ask from."""

    def __init__(self, interface: str) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
        except PermissionError as error:
            raise MachineError("not permitted to open a packet socket: run as root, or give CAP_NET_RAW") from error
        try:
            self._socket.bind((interface, 0x86DD))
        except OSError as error:
            self._socket.close()
            raise MachineError(f"{interface}: can't ask on it: {error.strerror}; see `ip link`") from error
        self._mac = self._socket.getsockname()[4].hex(":")
        self._source = _link_local(interface)

    def close(self) -> None:
        self._socket.close()

    def ask(self, address: IPv6Address) -> dict[str, Any] | None:
        """Send one multicast solicitation; the first advertisement for the address, or None after WAIT seconds."""
        target = str(address)
        group = in6_getnsma(address.packed)
        frame = (
            Ether(src=self._mac, dst=in6_getnsmac(group))
            / IPv6(src=self._source, dst=socket.inet_ntop(socket.AF_INET6, group), hlim=255)
            / ICMPv6ND_NS(tgt=target)
            / ICMPv6NDOptSrcLLAddr(lladdr=self._mac)
        )
        sent = bytes(frame)
        began = time.monotonic()
        try:
            self._socket.send(sent)
        except OSError as error:
            raise MachineError(f"can't send the solicitation: {error.strerror}; is the interface up?") from error
        while (left := began + WAIT - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                received = self._socket.recv(65535)
            except TimeoutError:
                return None
            except OSError as error:
                raise MachineError(f"no answer can come: {error.strerror}") from error
            seconds = time.monotonic() - began
            answer = _decode(received, target)
            if answer is not None:
                return {"seconds": round(seconds, 6), **answer}
        return None


def _link_local(interface: str) -> str:
    """The interface's link-local address, which the solicitation comes from."""
    from scapy.arch import in6_getifaddr

    for address, _scope, name in in6_getifaddr():
        if name == interface and IPv6Address(address).is_link_local:
            return str(address)
    raise MachineError(f"{interface}: it has no link-local address to ask from; is it up, with IPv6 on?")


def _decode(frame: bytes, target: str) -> dict[str, Any] | None:
    """An advertisement for the target, field by field; None for any other frame."""
    conf.debug_dissector = False
    packet = Ether(frame)
    if ICMPv6ND_NA not in packet or packet[ICMPv6ND_NA].tgt != target:
        return None
    na, ip6 = packet[ICMPv6ND_NA], packet[IPv6]
    option = packet.getlayer(ICMPv6NDOptDstLLAddr)
    return {
        "eth_source": packet.src,
        "source": ip6.src,
        "router": bool(na.R),
        "solicited": bool(na.S),
        "override": bool(na.O),
        "hop_limit": ip6.hlim,
        "target_link_layer_address": option.lladdr if option is not None else None,
        "checksum_valid": in6_chksum(socket.IPPROTO_ICMPV6, ip6, bytes(ip6.payload)) == 0,
    }


def _line(address: IPv6Address, answer: dict[str, Any] | None) -> str:
    if answer is None:
        return f"{address}: no answer within {WAIT:g} s"
    mac = answer["target_link_layer_address"] or f"{answer['eth_source']} (no target link-layer address option)"
    flags = " ".join(f"{name[0].upper()}={int(answer[name])}" for name in ("router", "solicited", "override"))
    oddities = [] if answer["checksum_valid"] else ["checksum WRONG"]
    oddities += [] if answer["hop_limit"] == 255 else [f"hop limit {answer['hop_limit']}, not 255"]
    return (
        f"{address} is at {mac}, {flags}, from {answer['source']}, after {answer['seconds'] * 1000:.2f} ms"
        + "".join(f", {oddity}" for oddity in oddities)
    )
