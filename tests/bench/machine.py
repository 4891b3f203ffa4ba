# SPDX-License-Identifier: GPL-2.0-or-later
"""What the figures were measured on: nothing that names the machine, only what makes it fast or slow."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import npd6_xdp
from npd6_xdp.system.bpf.compiler import load_bcc


def describe() -> dict[str, str]:
    """A line each: {what: value}."""
    model = _first("/proc/cpuinfo", r"model name\s*:\s*(.+)")
    kilobytes = _first("/proc/meminfo", r"MemTotal:\s*(\d+)")
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "npd6-xdp": f"{npd6_xdp.__version__}, commit {_commit()}",
        "processor": f"{model}, {os.cpu_count()} of them",
        "memory": f"{int(kilobytes) / 2**20:.0f} GiB" if kilobytes.isdigit() else "?",
        "virtual": "yes" if re.search(r"^flags\s*:.*\bhypervisor\b", _read("/proc/cpuinfo"), re.MULTILINE) else "no",
        "kernel": f"{platform.system()} {platform.release()}",
        "system": _first("/etc/os-release", r'PRETTY_NAME="(.+)"'),
        "Python, bcc": f"{platform.python_version()}, {load_bcc().__version__}",
        "peers": f"ndppd {_peer('ndppd')}, npd6 {_peer('npd6')}",
        "BPF": f"JIT {_read('/proc/sys/net/core/bpf_jit_enable').strip() or '?'},"
        f" statistics {_read('/proc/sys/kernel/bpf_stats_enabled').strip() or '?'}",
        "load before": _read("/proc/loadavg").split(" ")[0],
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _first(path: str, pattern: str) -> str:
    found = re.search(pattern, _read(path))
    return found[1].strip() if found else "?"


def _peer(name: str) -> str:
    """The version by the package's changelog, which is all of it that is unpacked."""
    for path in PEERS.glob(f"usr/share/doc/{name}/changelog.Debian.gz"):
        done = subprocess.run(["zcat", str(path)], capture_output=True, text=True, check=False)
        if found := re.match(r"\S+ \(([^)]+)\)", done.stdout):
            return found[1]
    return "missing"


def _commit() -> str:
    words = ["git", "-C", str(HOME), "-c", f"safe.directory={HOME}", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "?"
    return done.stdout.strip() or "?"


HOME = Path(__file__).resolve().parents[2]
PEERS = HOME / ".venv" / "peers"
