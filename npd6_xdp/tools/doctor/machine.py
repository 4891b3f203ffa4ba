# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine itself: kernel, bcc, whether the program loads, and what this process may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from npd6_xdp.system.bpf.compiler import OLDEST_KERNEL
from npd6_xdp.tools.doctor.facts import Facts, MachineFacts
from npd6_xdp.tools.doctor.finding import Finding, fail, note, ok, warn

_BUILT = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
_KERNELS = {
    "debian 11": "apt-get install -t bullseye-backports linux-image-$(dpkg --print-architecture)",
    "debian": "apt-get install linux-image-$(dpkg --print-architecture)",
    "ubuntu 22.04": "apt-get install linux-generic-hwe-22.04",
    "ubuntu": "apt-get install linux-generic",
    "fedora": "dnf upgrade kernel",
}
"""What installs a kernel that is new enough, by distribution, or by distribution and version."""
_BCC = {"fedora": "dnf install python3-bcc"}
_UNIT = "/etc/systemd/system/npd6-xdp.service.d"


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of the machine."""
    machine = facts.machine
    yield _kernel(machine)
    yield _bcc(machine)
    yield _capabilities(machine)
    yield _program(machine)
    yield _perf_events(facts)
    yield _memory(facts)
    yield _clock(machine)


def _kernel(machine: MachineFacts) -> Finding:
    oldest = ".".join(map(str, OLDEST_KERNEL))
    if tuple(int(part) for part in machine.kernel.split("-")[0].split(".")[:2] if part.isdigit()) < OLDEST_KERNEL:
        text = f"Linux {machine.kernel} is too old: npd6-xdp needs {oldest} or newer"
        install = _of_distribution(machine, _KERNELS)
        if not install:
            return fail("kernel", f"{text}; install one, and boot it")
        return fail("kernel", f"{text}; the distribution has one, to be booted", install, "systemctl reboot")
    return ok("kernel", f"Linux {machine.kernel} ({oldest} or newer is needed)")


def _bcc(machine: MachineFacts) -> Finding:
    if machine.bcc:
        return ok("bcc", f"bcc {machine.bcc}")
    return fail("bcc", machine.no_bcc, _of_distribution(machine, _BCC) or "apt-get install python3-bpfcc")


def _of_distribution(machine: MachineFacts, commands: Mapping[str, str]) -> str:
    """The command for this distribution, by its version if that has one of its own; "" where none is known."""
    name = machine.distribution.partition(" ")[0]
    return commands.get(machine.distribution) or commands.get(name, "")


def _capabilities(machine: MachineFacts) -> Finding:
    if machine.missing:
        missing = ", ".join(machine.missing)
        return note(
            "capabilities", f"this command runs without {missing}, so it can't look at everything: run it as root"
        )
    return ok("capabilities", "all that are needed")


def _program(machine: MachineFacts) -> Finding:
    if machine.program is None:
        return note("program", "not tried, since loading it takes bcc, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
    if machine.program:
        return fail("program", machine.program.replace("\n", "; "))
    return ok("program", "the kernel takes the XDP program (it was loaded, and let go)")


def _perf_events(facts: Facts) -> Finding:
    machine = facts.machine
    paranoid = f"perf_event_paranoid is {machine.paranoid or 'unknown'}, which CAP_PERFMON is above"
    if machine.program != "":
        return note("perf_events", f"not tried; {paranoid}")
    if machine.no_ring:
        mend = _more_memory(facts) if "locked memory" in machine.no_ring else ()
        return fail("perf_events", f"{machine.no_ring}; {_limit(machine)}", *mend)
    return ok("perf_events", f"the kernel grants the rings to Python ({paranoid})")


def _limit(machine: MachineFacts) -> str:
    return f"locked memory: {'no limit' if machine.locked_memory < 0 else f'{machine.locked_memory >> 10} KiB'}"


def _more_memory(facts: Facts) -> list[str]:
    """For the unit, if there is one; else for what is started from the same shell."""
    if (facts.unit.properties or {}).get("LoadState") != "loaded":
        return [f"ulimit -l {facts.machine.memory_wanted >> 10}"]
    write = f"mkdir -p {_UNIT} && printf '[Service]\\nLimitMEMLOCK=512M\\n' > {_UNIT}/memory.conf"
    return [write, "systemctl daemon-reload", "systemctl restart npd6-xdp"]


def _memory(facts: Facts) -> Finding:
    machine = facts.machine
    if machine.pages and machine.pages < machine.pages_wanted:
        return warn(
            "locked_memory",
            f"the kernel grants {machine.pages} pages a CPU for the ring to Python, not {machine.pages_wanted}, so a"
            f" burst is lost sooner ({_limit(machine)})",
            *_more_memory(facts),
        )
    return ok("locked_memory", _limit(machine))


def _clock(machine: MachineFacts) -> Finding:
    now = datetime.fromtimestamp(machine.time, UTC)
    if machine.time < _BUILT:
        return warn(
            "clock", f"the clock says {now:%Y-%m-%d}, so certificates and metrics are off", "timedatectl set-ntp true"
        )
    return ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC{', synchronised' if machine.synchronised else ''}")
