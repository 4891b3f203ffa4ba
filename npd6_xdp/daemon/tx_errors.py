# SPDX-License-Identifier: GPL-2.0-or-later
"""What drivers dropped of the answers that XDP sent back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.snapshot import InterfaceSnapshot
from npd6_xdp.core.steps import Steps, pieces
from npd6_xdp.system.ethtool import xdp_tx_errors

_PORTS = 16  # whose drivers are asked at once


def as_xdp(interfaces: Iterable[InterfaceSnapshot]) -> Iterator[str]:
    """The ports that ours sits on as XDP."""
    return (interface.port for interface in interfaces if interface.attach != AttachMode.TC)


def tx_errors(ports: Iterable[str]) -> Steps[dict[str, int]]:
    """By port. Where ours sits at tc, they would be those of another's XDP program."""
    found = {}
    for some in pieces(dict.fromkeys(ports), _PORTS):
        for port in some:
            errors = xdp_tx_errors(port)
            if errors is not None:
                found[port] = errors
        yield
    return found
