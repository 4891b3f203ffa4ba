# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine itself: kernel, bcc, whether the program loads, and what the daemon may, and this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from npd6_xdp.system.bpf.compiler import OLDEST_KERNEL
from npd6_xdp.system.privileges import CAP_IPC_LOCK, CAP_SYS_ADMIN, CAPABILITIES, lacking
from npd6_xdp.tools.doctor.facts import Facts, MachineFacts, Service
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
_PARANOID = "kernel.perf_event_paranoid"


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of the machine."""
    machine = facts.machine
    yield _kernel(machine)
    yield _bcc(machine)
    yield from _capabilities(machine)
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


def _capabilities(machine: MachineFacts) -> Iterator[Finding]:
    service = machine.service
    not_given = () if service is None else lacking(service.capabilities)
    if service is not None and not_given:
        every = " ".join(CAPABILITIES)
        text = f"the service, which runs as {service.user}, isn't given {', '.join(not_given)}, and can't start without"
        given = f"AmbientCapabilities={every}\\nCapabilityBoundingSet={every}"
        yield fail("capabilities", text, *_drop_in("capabilities", given))
    if machine.missing:
        missing = ", ".join(machine.missing)
        yield note(
            "capabilities", f"this command runs without {missing}, so it can't look at everything: run it as root"
        )
    elif not not_given:
        whose = "" if service is None else ", and the service is given them"
        yield ok("capabilities", f"all that are needed{whose}")


def _program(machine: MachineFacts) -> Finding:
    if machine.program is None:
        return note("program", "not tried, since loading it takes bcc, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")
    if machine.program:
        return fail("program", machine.program.replace("\n", "; "))
    return ok("program", "the kernel takes the XDP program (it was loaded, and let go)")


def _perf_events(facts: Facts) -> Finding:
    """By the rings that were opened with what the service has, or this process; else by the sysctl alone."""
    machine, service = facts.machine, facts.machine.service
    paranoid = f"{_PARANOID} is {machine.paranoid or 'unknown'}"
    whose = "" if service is None else "to the service "
    if machine.pages:
        return ok("perf_events", f"the kernel grants the rings to Python {whose}({paranoid})")
    if machine.no_ring:
        is_paranoid = _PARANOID in machine.no_ring
        mend = _less_paranoid(facts) if is_paranoid else _more_memory(facts) if "memory" in machine.no_ring else ()
        text = f"no ring for the service: {machine.no_ring}" if service is not None else machine.no_ring
        return fail("perf_events", f"{text}; {_limit(machine)}", *mend)
    if machine.paranoid.isdigit() and int(machine.paranoid) > 2:
        paranoid += ", and above 2 some distributions' kernels (Debian, Ubuntu) want CAP_SYS_ADMIN"
        if service is not None and not service.capabilities >> CAP_SYS_ADMIN & 1:
            return warn("perf_events", f"not tried; {paranoid}, which the service isn't given", *_less_paranoid(facts))
    return note("perf_events", f"not tried; {paranoid}: run doctor as root, once the checks above are ok")


def _less_paranoid(facts: Facts) -> list[str]:
    """Now, and at each boot, as the package's file has it; by its name it comes after those that begin with digits."""
    lasting = f"printf '{_PARANOID} = 2\\n' > /etc/sysctl.d/npd6-xdp.conf"
    again = [] if facts.machine.service is None else ["systemctl restart npd6-xdp"]
    return ["sysctl -w kernel.perf_event_paranoid=2", lasting, *again]


def _limit(machine: MachineFacts) -> str:
    memory = machine.locked_memory if machine.service is None else machine.service.locked_memory
    whose = "" if machine.service is None else " of the service"
    return f"locked memory{whose}: {'no limit' if memory < 0 else f'{memory >> 10} KiB'}"


def _more_memory(facts: Facts) -> list[str]:
    """For the unit, if that runs it; else for what is started from the same shell."""
    if facts.machine.service is None:
        return [f"ulimit -l {facts.machine.memory_wanted >> 10}"]
    return _drop_in("memory", "LimitMEMLOCK=512M")


def _drop_in(name: str, lines: str) -> list[str]:
    """What gives the service this, whatever else is written for it: the last file by its name decides."""
    write = f"mkdir -p {_UNIT} && printf '[Service]\\n{lines}\\n' > {_UNIT}/zz-{name}.conf"
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
    service = machine.service
    if service is not None and not machine.pages and not machine.no_ring and _is_little(machine, service):
        text = f"the rings to Python take {machine.memory_wanted >> 10} KiB while a reload replaces a program, and may"
        return warn("locked_memory", f"{text} be smaller, or refused ({_limit(machine)})", *_more_memory(facts))
    return ok("locked_memory", _limit(machine))


def _is_little(machine: MachineFacts, service: Service) -> bool:
    is_bound = service.locked_memory >= 0 and not service.capabilities >> CAP_IPC_LOCK & 1
    return is_bound and service.locked_memory < machine.memory_wanted


def _clock(machine: MachineFacts) -> Finding:
    now = datetime.fromtimestamp(machine.time, UTC)
    if machine.time < _BUILT:
        return warn(
            "clock", f"the clock says {now:%Y-%m-%d}, so certificates and metrics are off", "timedatectl set-ntp true"
        )
    said = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if machine.synchronised is False:
        unkept = "the kernel knows of nothing that keeps it right, such as systemd-timesyncd or chrony"
        return note("clock", f"{said}; {unkept}", "timedatectl set-ntp true")
    return ok("clock", f"{said}{', synchronised' if machine.synchronised else ''}")
