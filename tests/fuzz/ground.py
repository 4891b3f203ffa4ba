# SPDX-License-Identifier: GPL-2.0-or-later
"""A network namespace of this process's own, with interfaces and routes, and the C code, compiled."""

from __future__ import annotations

import ctypes as ct
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npd6_xdp.core.verdict import Limit, Outcome, Reason
from tests.fuzz.configurations import CONFIGURATIONS, PORTS, UNREACHABLE
from tests.fuzz.scene import MIRRORED

HERE = Path(__file__).resolve().parent
_SOURCES = ("reference.c", "generate.c", "run.c")
_CLONE_NEWNET = 0x40000000
_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC")


class GroundError(Exception):
    """The machine can't do what the fuzzer needs; the message is one line."""


def verdict_header() -> str:
    """The header that reference.h includes: the outcomes, reasons and limits as enums, and as the metrics have them.

    It is written from npd6_xdp/core/verdict.py, whose order is that of the program's counters.
    """
    lines = ["#pragma once"]
    for kind in (Outcome, Reason, Limit):
        name = kind.__name__.upper()
        members = [f"LIMIT_{member}" for member in Limit.__members__] if kind is Limit else kind.__members__
        lines.append(f"enum {{ {', '.join((*members, f'{name}S'))} }};")
        lines.append(f"#define {name}_NAMES {', '.join(map(json.dumps, kind))}")
    return "\n".join(lines) + "\n"


def compiled() -> Any:
    """The reference, the generator and what runs them."""
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "fuzz.so"
        Path(directory, "verdict.h").write_text(verdict_header())
        try:
            subprocess.run(
                ["gcc", *_FLAGS, "-I", directory, "-o", library, *(HERE / name for name in _SOURCES)],
                check=True,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise GroundError("gcc is missing: deploy/setup.sh --test installs it") from None
        except subprocess.CalledProcessError as error:
            raise GroundError(f"gcc can't compile tests/fuzz: {error.stderr.strip()}") from error
        lib = ct.CDLL(str(library), use_errno=True)
    for number, kind in enumerate(MIRRORED):
        if lib.size_of(number) != ct.sizeof(kind):
            raise GroundError(f"{kind.__name__} in tests/fuzz/scene.py isn't what it is in C")
    lib.run_chunk.argtypes = (ct.c_void_p, ct.c_void_p, ct.c_uint64, ct.c_int, ct.c_int, ct.c_void_p, ct.c_void_p)
    lib.run_one.argtypes = (ct.c_void_p,) * 4
    lib.start.argtypes = (ct.c_void_p,)
    lib.frame_of.argtypes = (ct.c_void_p, ct.c_uint64, ct.c_int, ct.c_void_p)
    lib.verdict_of.argtypes = lib.frame_of.argtypes
    lib.events_agree.argtypes = (ct.c_char_p, ct.c_void_p, ct.c_int)
    lib.checksum_into.argtypes = (ct.c_void_p, ct.c_void_p, ct.c_int)
    return lib


def enter() -> Mapping[str, int]:
    """Leave this machine's network for one of our own, which goes with the process: the indexes of its interfaces.

    Each is one end of a veth. One CPU does all from here on, since each has a ring and counters of its own.
    """
    libc = ct.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise GroundError(f"no network namespace can be made: {os.strerror(ct.get_errno())}; run as root")
    os.sched_setaffinity(0, {libc.sched_getcpu()})
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
    _ip("link set lo up")
    for number, port in enumerate(PORTS):
        _ip(f"link add {port} type veth peer name peer{number}", f"link set {port} up", f"link set peer{number} up")
    return {name: index for index, name in socket.if_nameindex()}


def route() -> None:
    """Make the routes that configurations speak of."""
    routes = {prefix: out for each in CONFIGURATIONS for prefix, out in each.routes.items()}
    for prefix, out in routes.items():
        unreachable = out in UNREACHABLE and out != "lo"
        _ip(f"-6 route replace {out} {prefix}" if unreachable else f"-6 route replace {prefix} dev {out}")


def _ip(*commands: str) -> None:
    for command in commands:
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise GroundError(f"ip {command}: {done.stderr.strip()}")
