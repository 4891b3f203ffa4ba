# SPDX-License-Identifier: GPL-2.0-or-later
"""What only ethtool's ioctl tells of a driver: whether it removes VLAN tags from frames, and how many it dropped."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from npd6_xdp.core.names import raw

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO, _ETHTOOL_GFLAGS = 0x3, 0x25
_ETHTOOL_GSTRINGS, _ETHTOOL_GSTATS, _ETHTOOL_GSSET_INFO = 0x1B, 0x1D, 0x37
_ETH_SS_STATS = 1
_ETH_FLAG_RXVLAN = 1 << 8
_U32 = struct.Struct("=I")
_DRVINFO = struct.Struct("=I32s160x")  # struct ethtool_drvinfo


def receive_vlan_offload(port: str) -> bool:
    """Whether the NIC takes VLAN tags out of the frames before XDP sees them (`ethtool -k`: rx-vlan-offload)."""
    flags = _ethtool(port, struct.pack("=II", _ETHTOOL_GFLAGS, 0))  # struct ethtool_value
    return bool(flags and _U32.unpack_from(flags, 4)[0] & _ETH_FLAG_RXVLAN)


def driver(port: str) -> str:
    """The name of its driver (`ethtool -i`); "" where it doesn't say."""
    found = _ethtool(port, _DRVINFO.pack(_ETHTOOL_GDRVINFO, b""))
    return "" if found is None else _DRVINFO.unpack(found)[1].rstrip(b"\0").decode(errors="replace")


def xdp_tx_errors(port: str) -> int | None:
    """How many frames that XDP sent back the driver dropped (`ethtool -S`); None where it doesn't say."""
    asked = _ethtool(port, struct.pack("=IIQI", _ETHTOOL_GSSET_INFO, 0, 1 << _ETH_SS_STATS, 0))
    length = _U32.unpack_from(asked, 16)[0] if asked else 0
    names = _ethtool(port, struct.pack("=III", _ETHTOOL_GSTRINGS, _ETH_SS_STATS, length) + bytes(32 * length))
    values = _ethtool(port, struct.pack("=II", _ETHTOOL_GSTATS, length) + bytes(8 * length))
    if not length or names is None or values is None:
        return None
    named = zip(struct.iter_unpack("32s", names[12:]), struct.iter_unpack("=Q", values[8:]), strict=True)
    errors = [value for (name,), (value,) in named if name.rstrip(b"\0").endswith(b"xdp_tx_errors")]
    return sum(errors) if errors else None


def _ethtool(port: str, request: bytes) -> bytes | None:
    """The driver's reply to an ethtool request; None if it doesn't know that."""
    buffer = array.array("B", request)
    try:  # there may be no descriptor left, too
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ioctl_socket:
            fcntl.ioctl(ioctl_socket, _SIOCETHTOOL, struct.pack("16sP", raw(port), buffer.buffer_info()[0]))
    except OSError:
        return None
    return buffer.tobytes()
