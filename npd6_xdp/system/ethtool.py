# SPDX-License-Identifier: GPL-2.0-or-later
"""What only ethtool's ioctl tells of a driver: how it is set up, whether it removes VLAN tags or keeps back frames with
them, how many it dropped.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

from npd6_xdp.core.names import raw, shown
from npd6_xdp.core.vlan_filter import Feature

_SIOCETHTOOL = 0x8946
_SIOCGIFMTU = 0x8921
_ETHTOOL_GDRVINFO, _ETHTOOL_GFLAGS = 0x3, 0x25
_ETHTOOL_GRINGPARAM, _ETHTOOL_GPFLAGS, _ETHTOOL_GFEATURES, _ETHTOOL_GCHANNELS = 0x10, 0x27, 0x3A, 0x3C
_FEATURE_WORDS = 8  # of 32 features each; Linux 6.18 has two
_ETHTOOL_GSTRINGS, _ETHTOOL_GSTATS, _ETHTOOL_GSSET_INFO = 0x1B, 0x1D, 0x37
_ETH_SS_STATS, _ETH_SS_FEATURES = 1, 4
_VLAN_FILTER = b"rx-vlan-filter"  # NETIF_F_HW_VLAN_CTAG_FILTER
_ETH_FLAG_RXVLAN = 1 << 8
_U32 = struct.Struct("=I")
_FEATURES = struct.Struct("=IIII")  # struct ethtool_get_features_block: available, requested, active, never changed
_DRVINFO = struct.Struct("=I32s160x")  # struct ethtool_drvinfo
_SETTINGS = (  # struct ethtool_gfeatures, ethtool_channels, ethtool_ringparam, and ethtool_value of private flags
    struct.pack("=II", _ETHTOOL_GFEATURES, _FEATURE_WORDS) + bytes(16 * _FEATURE_WORDS),
    struct.pack("=9I", _ETHTOOL_GCHANNELS, *8 * (0,)),
    struct.pack("=9I", _ETHTOOL_GRINGPARAM, *8 * (0,)),
    struct.pack("=2I", _ETHTOOL_GPFLAGS, 0),
)


def receive_vlan_offload(port: str) -> bool:
    """Whether the NIC takes VLAN tags out of the frames before XDP sees them (`ethtool -k`: rx-vlan-offload)."""
    flags = _ethtool(port, struct.pack("=II", _ETHTOOL_GFLAGS, 0))  # struct ethtool_value
    return bool(flags and _U32.unpack_from(flags, 4)[0] & _ETH_FLAG_RXVLAN)


def vlan_filter(port: str) -> Feature:
    """Whether the NIC keeps back frames of VLANs that it wasn't told of (`ethtool -k`: rx-vlan-filter)."""
    return feature(port, _VLAN_FILTER)


def feature(port: str, name: bytes) -> Feature:
    """A feature of a driver, by the kernel's name of it; OFF, too, where there is none of that name."""
    names, found = _strings(port, _ETH_SS_FEATURES), _ethtool(port, _SETTINGS[0])
    if found is None or name not in names:
        return Feature.OFF
    block, bit = divmod(names.index(name), 32)
    available, _, active, never = (each >> bit & 1 for each in _FEATURES.unpack_from(found, 8 + 16 * block))
    if not active:
        return Feature.OFF
    return Feature.ON if available and not never else Feature.FIXED


def settings(ifindex: int) -> tuple[bytes, ...]:
    """What somebody may change of an interface by which its driver takes an XDP program or refuses it: the MTU,
    features (LRO, say), the numbers of channels and of descriptors, private flags. To be compared only; what it doesn't
    tell is b"", and () is an interface that isn't there. Some 40 us.
    """
    try:
        port = shown(os.fsencode(socket.if_indextoname(ifindex)))
    except OSError:
        return ()
    mtu = _asked(_SIOCGIFMTU, struct.pack("16s24x", raw(port)))
    return (mtu or b"")[16:20], *(_ethtool(port, request) or b"" for request in _SETTINGS)


def driver(port: str) -> str:
    """The name of its driver (`ethtool -i`); "" where it doesn't say."""
    found = _ethtool(port, _DRVINFO.pack(_ETHTOOL_GDRVINFO, b""))
    return "" if found is None else _DRVINFO.unpack(found)[1].rstrip(b"\0").decode(errors="replace")


def xdp_tx_errors(port: str) -> int | None:
    """How many frames that XDP sent back the driver dropped (`ethtool -S`); None where it doesn't say."""
    names = _strings(port, _ETH_SS_STATS)
    values = _ethtool(port, struct.pack("=II", _ETHTOOL_GSTATS, len(names)) + bytes(8 * len(names)))
    if not names or values is None:
        return None
    named = zip(names, struct.iter_unpack("=Q", values[8:]), strict=True)
    errors = [value for name, (value,) in named if name.endswith(b"xdp_tx_errors")]
    return sum(errors) if errors else None


def _strings(port: str, kind: int) -> list[bytes]:
    """The names of what there is of a kind, in its order; none where the driver doesn't say."""
    asked = _ethtool(port, struct.pack("=IIQI", _ETHTOOL_GSSET_INFO, 0, 1 << kind, 0))
    length = _U32.unpack_from(asked, 16)[0] if asked else 0
    names = (
        _ethtool(port, struct.pack("=III", _ETHTOOL_GSTRINGS, kind, length) + bytes(32 * length)) if length else None
    )
    return [name.rstrip(b"\0") for (name,) in struct.iter_unpack("32s", names[12:])] if names else []


def _ethtool(port: str, request: bytes) -> bytes | None:
    """The driver's reply to an ethtool request; None if it doesn't know that."""
    buffer = array.array("B", request)
    ifreq = struct.pack("16sP", raw(port), buffer.buffer_info()[0])
    return None if _asked(_SIOCETHTOOL, ifreq) is None else buffer.tobytes()


def _asked(number: int, ifreq: bytes) -> bytes | None:
    """What an ioctl of interfaces makes of a struct ifreq; None if it fails."""
    try:  # there may be no descriptor left, too
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ioctl_socket:
            return fcntl.ioctl(ioctl_socket, number, ifreq)
    except OSError:
        return None
