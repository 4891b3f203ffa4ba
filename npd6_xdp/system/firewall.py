# SPDX-License-Identifier: GPL-2.0-or-later
"""What filters packets on this machine, in the words of the tools that tell it: nft(8) and ip6tables-save(8)."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

_NETLINK_NETFILTER = 12
_GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_REQUEST_DUMP = 0x301
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ERROR, _DONE = 2, 3
_SBIN = "/usr/sbin:/sbin"  # where such tools are, and an ordinary user's PATH doesn't lead
_TIMEOUT = 30.0  # seconds


def find(tool: str) -> str | None:
    """Where a tool is; None if it isn't installed."""
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")


def said(*words: str) -> tuple[str, str]:
    """What a tool writes, and "", or why it doesn't: its last word, in a line."""
    path = find(words[0])
    if path is None:
        return "", f"{words[0]} isn't installed"
    try:
        done = subprocess.run(
            (path, *words[1:]), capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"{words[0]}: {error}"
    if done.returncode:
        return "", f"{words[0]}: {' '.join(done.stderr.split())[-200:] or f'exit status {done.returncode}'}"
    return done.stdout, ""


def has_nft_tables() -> bool | None:
    """Whether nftables has any table in this network namespace; None: the kernel doesn't say, or to root alone."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
            netlink.settimeout(_TIMEOUT)
            netlink.send(_HEADER.pack(_HEADER.size + 4, _GETTABLE, _REQUEST_DUMP, 1, 0) + bytes(4))
            answer = netlink.recv(1 << 16)
    except OSError:
        return None
    kind = _HEADER.unpack_from(answer)[1]
    return None if kind == _ERROR else kind != _DONE


def legacy_tables() -> str | None:
    """The names of the tables that the older ip6tables has, a line each; None: only root may know."""
    try:
        return Path("/proc/net/ip6_tables_names").read_text()
    except FileNotFoundError:
        return ""
    except OSError:
        return None
