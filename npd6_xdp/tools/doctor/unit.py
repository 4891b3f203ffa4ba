# SPDX-License-Identifier: GPL-2.0-or-later
"""The systemd unit: whether it is there, runs, failed, and comes back after a boot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from npd6_xdp.system.firewall import said
from npd6_xdp.system.privileges import NUMBERS
from npd6_xdp.tools.doctor.facts import Facts, Service, Unit
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn

NAME = "npd6-xdp.service"
_PROPERTIES = (
    "LoadState,ActiveState,SubState,UnitFileState,Result,ExecMainStatus,NeedDaemonReload,MainPID"
    ",User,AmbientCapabilities,CapabilityBoundingSet,LimitMEMLOCKSoft"
)
_MANAGER = Path("/run/systemd/system")


def read_unit() -> Unit:
    """Ask systemd, where it runs."""
    if not _MANAGER.is_dir():
        return Unit()
    text, why = said("systemctl", "show", "--property", _PROPERTIES, NAME)
    if why:
        return Unit(None, why)
    return Unit({key: value for key, _, value in (line.partition("=") for line in text.splitlines())})


def service_of(unit: Unit, *, runs: bool) -> Service | None:
    """What the daemon has that the unit runs; None: there is no unit, or the daemon that `runs` isn't its."""
    its = unit.properties or {}
    if its.get("LoadState") != "loaded" or (runs and its.get("ActiveState") not in ("active", "reloading")):
        return None
    user, memory = its.get("User", ""), its.get("LimitMEMLOCKSoft", "")
    capabilities = _bits(its.get("CapabilityBoundingSet", ""))
    if user not in ("", "root", "0"):
        capabilities &= _bits(its.get("AmbientCapabilities", ""))
    is_number = memory.isdigit() and int(memory) < 1 << 63
    return Service(user or "root", capabilities, int(memory) if is_number else -1)


def _bits(names: str) -> int:
    return sum(1 << NUMBERS[name] for name in set(names.upper().split()) & NUMBERS.keys())


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of the unit."""
    its = facts.unit.properties
    if its is None:
        yield note("unit", facts.unit.unread) if facts.unit.unread else ok("unit", "no systemd here, so no unit")
        return
    if its.get("LoadState") == "not-found":
        yield ok("unit", f"no {NAME} here: the daemon is started by other means")
        return
    if its.get("LoadState") == "masked":
        yield fail("unit", f"{NAME} is masked, so it can't be started", f"systemctl unmask {NAME}")
        return
    if its.get("NeedDaemonReload") == "yes":
        yield warn("unit", f"{NAME} has changed on disk since systemd read it", "systemctl daemon-reload")
    state, lasting = its.get("ActiveState", ""), its.get("UnitFileState", "")
    if state == "failed":
        yield fail(
            "unit",
            f"{NAME} has failed ({its.get('Result')}, exit status {its.get('ExecMainStatus')}): journalctl -u {NAME}"
            " says why",
            f"systemctl restart {NAME}",
        )
    elif state == "activating" and its.get("SubState") == "auto-restart":
        yield fail(
            "unit",
            f"{NAME} ends again and again, and is about to be started again ({its.get('Result')}, exit status"
            f" {its.get('ExecMainStatus')}): journalctl -u {NAME} says why",
        )
    elif state in ("active", "reloading"):
        if lasting == "disabled":
            yield warn("unit", f"{NAME} runs, and won't after a boot", f"systemctl enable {NAME}")
        else:
            yield ok("unit", f"{NAME} is {state} ({its.get('SubState')}), {lasting or 'of no file'}")
    elif facts.status is None:
        yield note("unit", f"{NAME} is {state or 'unknown'}", f"systemctl enable --now {NAME}")
    else:
        yield note("unit", f"{NAME} is {state or 'unknown'}, and a daemon runs: it was started by other means")
