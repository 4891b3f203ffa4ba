# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp doctor`: what about this machine would keep a configuration from working, and what mends it.

A file a subject: each has checks(facts), which judges what reading.py has read and asks the machine for nothing more.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from pathlib import Path

from npd6_xdp.core.config import Config
from npd6_xdp.tools.doctor import (
    covered,
    firewall,
    forwarding,
    hosts,
    interface,
    kernel_proxy,
    machine,
    others,
    own,
    routes,
    running,
    snooping,
    unit,
    web,
)
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, findings_json, findings_text, is_failed
from npd6_xdp.tools.doctor.follow import follow
from npd6_xdp.tools.doctor.reading import read

Checks = Callable[[Facts], Iterator[Finding]]

SUBJECTS: tuple[Checks, ...] = (
    running.file_checks,  # first: all that goes by the daemon's state goes by the file that it has
    machine.checks,
    unit.checks,
    web.checks,
    interface.checks,
    snooping.checks,
    forwarding.checks,
    routes.checks,
    covered.checks,
    own.checks,
    hosts.checks,
    firewall.checks,
    others.checks,
    kernel_proxy.checks,
    running.checks,
)


def examine(facts: Facts) -> list[Finding]:
    """What all checks find."""
    return [finding for checks in SUBJECTS for finding in checks(facts)]


def run_follow(
    config: Config, path: Path, text: str, control: Path | None, target: IPv6Address, *, as_json: bool
) -> int:
    """Follow one target, and print what is found of each step; the exit status. Raises MachineError."""
    return say(follow(read(config, path, text, control, attach=False), target), as_json=as_json)


def run(config: Config, path: Path, text: str, control: Path | None, *, attach: bool, as_json: bool) -> int:
    """Look, and print what is found; the exit status: 1 if anything fails. Raises MachineError."""
    return say(examine(read(config, path, text, control, attach=attach)), as_json=as_json)


def say(findings: list[Finding], *, as_json: bool) -> int:
    """Print findings, and return the exit status that they make."""
    if as_json:
        print(json.dumps(findings_json(findings), indent=2), flush=True)
    else:
        colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        print(findings_text(findings, colours=colours), flush=True)
    return 1 if is_failed(findings) else 0
