# SPDX-License-Identifier: GPL-2.0-or-later
"""What `trace` is asked for on the command line, read into the filter that the XDP program goes by."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address, IPv6Network, NetmaskValueError

from npd6_xdp.core.config_parsers import exact_name, parse_vlan, targets
from npd6_xdp.core.config_words import Wrong
from npd6_xdp.core.errors import UsageError
from npd6_xdp.core.macs import mac_of
from npd6_xdp.core.names import canonical
from npd6_xdp.core.prefix import Prefix
from npd6_xdp.core.trace_wire import MOST_SAMPLE, Filter
from npd6_xdp.core.verdict import Outcome

_DIGITS = 10  # of the longest number that anybody means


def filter_of(
    interface: str | None,
    vlan: str | None,
    target: str | None,
    source: str | None,
    outcome: str | None,
    rule: str | None,
    sample: str | None,
) -> Filter:
    """The options' values, None where one isn't given. Raises UsageError, a line that says what to write instead."""
    mac = None if source is None else _mac(source)
    return Filter(
        interface=None if interface is None else _interface(interface),
        vlan=None if vlan is None else _vlan(vlan),
        target=None if target is None else _prefix("--target", target, "an IPv6 address or prefix"),
        source=None
        if source is None or mac
        else _prefix("--source", source, "a MAC address such as 02:00:00:00:00:01, an IPv6 address or a prefix"),
        source_mac=mac,
        outcomes=frozenset() if outcome is None else _outcomes(outcome),
        rule=None if rule is None else _rule(rule),
        sample=1 if sample is None else number("--sample", sample, MOST_SAMPLE - 1),
    )


def number(option: str, text: str, most: int) -> int:
    """A number from 1 on. Raises UsageError."""
    if not re.fullmatch(rf"[0-9]{{1,{_DIGITS}}}", text, re.ASCII) or not 1 <= int(text) <= most:
        raise UsageError(f"{option} {text}: write a number from 1 to {most:,}")
    return int(text)


def _interface(text: str) -> str:
    if ":" in text:
        raise UsageError(f"--interface {text}: write its name alone, and which frames by --vlan")
    try:
        return exact_name(canonical(text))
    except Wrong as wrong:
        raise UsageError(f"--interface {text}: {wrong}") from None


def _rule(text: str) -> str:
    """As the configuration has it: which spellings are of one rule, the daemon knows."""
    try:
        targets(text)
    except Wrong as wrong:
        raise UsageError(f"--rule {text}: {wrong}") from None
    return text


def _mac(text: str) -> bytes | None:
    """A MAC address; None if the text is none."""
    with suppress(ValueError):
        return mac_of(text)
    return None


def _vlan(text: str) -> tuple[int, ...] | None:
    try:
        vlan = parse_vlan(text)
    except ValueError as error:
        raise UsageError(f"--vlan {text}: {error}") from error
    return None if vlan.any else vlan.tags


def _prefix(option: str, text: str, what: str) -> Prefix:
    if "%" in text:
        raise UsageError(f"{option} {text}: leave the zone out, and name the --interface")
    try:
        network = IPv6Network(text, strict=False)
    except (AddressValueError, NetmaskValueError):
        raise UsageError(f"{option} {text}: write {what}, such as 2001:db8:1::/64") from None
    if network.network_address != (address := IPv6Address(text.partition("/")[0])):
        raise UsageError(
            f"{option} {text}: its address has bits set behind its length: write {network}, or {address} for that alone"
        )
    return Prefix.of(network)


def _outcomes(text: str) -> frozenset[Outcome]:
    found = set()
    for word in text.split(","):
        try:
            found.add(Outcome(word.strip()))
        except ValueError:
            raise UsageError(f"--outcome {text}: {word!r} is none: name some of {', '.join(Outcome)}") from None
    return frozenset(found)
