# SPDX-License-Identifier: GPL-2.0-or-later
"""What scenes ask of the kernel and ip(8) can't do: XDP programs without a compiler, offloads, a ping."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from npd6_xdp.lab.topology import Namespace, Topology

_SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
_BPF_PROG_LOAD, _BPF_PROG_GET_FD_BY_ID, _BPF_OBJ_GET_INFO_BY_FD, _BPF_LINK_CREATE = 5, 13, 15, 28
_VERIFIED_INSNS = 216  # where struct bpf_prog_info has it (Linux 5.16)
_BPF_PROG_TYPE_XDP, _BPF_XDP = 6, 37
_RETURN_XDP_PASS = bytes.fromhex("b7000000020000009500000000000000")  # r0 = 2; exit
_SIOCETHTOOL = 0x8946
_ETHTOOL_GFLAGS, _ETHTOOL_SFLAGS, _ETH_FLAG_TXVLAN = 0x25, 0x26, 1 << 7
_ECHO_REQUEST, _ECHO_REPLY = 128, 129

_libc = ctypes.CDLL(None, use_errno=True)


def xdp_pass(topology: Topology, namespace: Namespace, interface: str) -> None:
    """Attach a program that passes every frame, in native mode, for as long as this process lives.

    Topology.xdp_pass() does the same by way of bcc, which takes seconds on an emulated machine.
    """
    code, licence = ctypes.create_string_buffer(_RETURN_XDP_PASS), ctypes.create_string_buffer(b"GPL")
    instructions = len(_RETURN_XDP_PASS) // 8
    words = (_BPF_PROG_TYPE_XDP, instructions, ctypes.addressof(code), ctypes.addressof(licence))
    program = bpf(_BPF_PROG_LOAD, struct.pack("=IIQQ", *words))
    with topology.inside(namespace):
        bpf(_BPF_LINK_CREATE, struct.pack("=IIII", program, socket.if_nametoindex(interface), _BPF_XDP, 1 << 2))
    os.close(program)


WALKED = 100_000
"""Instructions that the verifier may walk: it gives up at a million."""


class Kind(IntEnum):
    """The kinds of programs that frames come to: enum bpf_prog_type."""

    TC = 3
    XDP = 6


def loaded(pid: int) -> Iterator[tuple[int, Kind]]:
    """The programs of these kinds that a process holds: the kernel's number of each, and its kind."""
    for path in list(Path(f"/proc/{pid}/fdinfo").iterdir()):
        with suppress(FileNotFoundError):
            said = dict(re.findall(r"^(prog_type|prog_id):\t(\d+)$", path.read_text(), re.MULTILINE))
            if "prog_type" in said and int(said["prog_type"]) in set(Kind):
                yield int(said["prog_id"]), Kind(int(said["prog_type"]))


def walked(program: int) -> int:
    """How many instructions the verifier walked until it took the program of that number."""
    descriptor = bpf(_BPF_PROG_GET_FD_BY_ID, struct.pack("=I", program))
    try:
        return walked_of(descriptor)
    finally:
        os.close(descriptor)


def walked_of(descriptor: int) -> int:
    """The same of a program by its descriptor."""
    info = ctypes.create_string_buffer(_VERIFIED_INSNS + 4)
    bpf(_BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
    return int(struct.unpack_from("=I", info, _VERIFIED_INSNS)[0])


def bpf(command: int, attributes: bytes) -> int:
    """The system call of that name: what it returns. Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes, 128)
    descriptor: int = _libc.syscall(_SYS_BPF, command, buffer, len(buffer))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return descriptor


def transmit_vlan_offload(topology: Topology, namespace: Namespace, interface: str, on: bool) -> None:
    """`ethtool -K INTERFACE txvlan on|off`: whether VLAN devices on it leave their tags to it, beside the frame."""
    with topology.inside(namespace), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:

        def flags(command: int, value: int = 0) -> int:
            data = array.array("I", [command, value])
            request = struct.pack("16sP", interface.encode(), data.buffer_info()[0])
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
            return data[1]

        now = flags(_ETHTOOL_GFLAGS)
        flags(_ETHTOOL_SFLAGS, now | _ETH_FLAG_TXVLAN if on else now & ~_ETH_FLAG_TXVLAN)


def ping(topology: Topology, namespace: Namespace, target: str, interface: str, *, tries: int = 5) -> bool:
    """Whether an echo request out of an interface is answered, one of so many, a second apart."""
    identity = os.getpid() & 0xFFFF
    with topology.inside(namespace):
        wire = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        for number in range(tries):
            # The kernel writes the checksum (RFC 3542 §3.1).
            with suppress(OSError):  # the neighbour didn't answer so far
                wire.sendto(struct.pack("!BBHHH", _ECHO_REQUEST, 0, 0, identity, number), (target, 0))
            deadline = time.monotonic() + 1.0
            while (left := deadline - time.monotonic()) > 0:
                wire.settimeout(left)
                try:
                    message, sender = wire.recvfrom(2048)
                except TimeoutError:
                    break
                if message[0] == _ECHO_REPLY and sender[0] == target and message[4:6] == identity.to_bytes(2):
                    return True
    return False


def kernel_asks(topology: Topology, interface: str, target: str, *, seconds: float = 20.0) -> str:
    """Have the upstream's kernel send to a target by an interface; the MAC that it finds, or "unresolved".

    The target must be on-link there. What is sent is a datagram to the discard port (RFC 863).
    """
    with topology.inside("upstream"):
        datagram = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with datagram:
        datagram.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        deadline = time.monotonic() + seconds
        again = 0.0
        while (now := time.monotonic()) < deadline:
            if now >= again:
                again = now + 1.0
                # The kernel says at times what became of the datagram before, or that its table is full.
                with suppress(OSError):
                    datagram.sendto(b"", (target, 9))
            entry = topology.neighbour("upstream", interface, target)
            if entry is not None and entry.mac is not None:
                return entry.mac
            time.sleep(0.1)
    return "unresolved"


def init(topology: Topology) -> str:
    """The configuration that `npd6-xdp init` writes for the edge."""
    return str(topology.run("edge", sys.executable, "-m", "npd6_xdp", "init", timeout=600.0).stdout)
