# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the machine once for `doctor`: everything that can be read without privilege, and what this process may."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from npd6_xdp.core import rtnetlink
from npd6_xdp.core.altnames import with_names
from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.build import build
from npd6_xdp.core.config import Attach, Config, Wish
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.link_messages import LinkEntry
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.route_messages import REFUSALS, RouteType
from npd6_xdp.core.table import Table
from npd6_xdp.core.vlan_filter import KeptBack
from npd6_xdp.core.warnings import DefaultRoute, Receiver
from npd6_xdp.system.bpf.attach import Functions, Links
from npd6_xdp.system.bpf.compiler import load_bcc
from npd6_xdp.system.bpf.events import RING_PAGES, EventRing
from npd6_xdp.system.bpf.load import Loaded, load
from npd6_xdp.system.bpf.others import program_name, tc_programs
from npd6_xdp.system.bpf.sizes import sizes_for
from npd6_xdp.system.ethtool import driver, receive_vlan_offload
from npd6_xdp.system.firewall import find
from npd6_xdp.system.netlink.inspection import Inspection, xdp_features
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.netlink.requests import Requests
from npd6_xdp.system.netlink.router import Router
from npd6_xdp.system.netlink.routes import RouteWatch
from npd6_xdp.system.other_daemons import other_daemons, unit_of
from npd6_xdp.system.privileges import (
    confine,
    holders_of_program,
    is_clock_synchronised,
    lacking,
    locked_memory,
    missing_capabilities,
)
from npd6_xdp.system.sysctl import read as read_sysctl
from npd6_xdp.tools.control import ask
from npd6_xdp.tools.doctor import hosts
from npd6_xdp.tools.doctor.facts import Answerer, Bridge, Facts, MachineFacts, Port, Program, Service
from npd6_xdp.tools.doctor.networkd import read_networkd
from npd6_xdp.tools.doctor.reading_firewall import read_firewall
from npd6_xdp.tools.doctor.samples import samples
from npd6_xdp.tools.doctor.unit import read_unit, service_of
from npd6_xdp.tools.doctor.web import read_web_files
from npd6_xdp.tools.facts import vlan_filters

_MODES = ("xdp", "xdpgeneric", "xdpoffload")
_RING_BYTES = 2304 << 10  # of two programs, a CPU
_PATIENCE = 15.0  # seconds for the daemon's next word, of which it says one every 5
_STATUS = {"build", "pid", "configuration", "reload_error", "last_reload", "interfaces", "refused", "warnings"}
_ANSWERERS = ("ndppd", "npd6", "odhcpd")


def read(config: Config, path: Path, text: str, control: Path | None, *, attach: bool) -> Facts:
    """Everything; `attach` has the program attached to each port for a moment, in native mode. Raises MachineError."""
    if not Path("/proc/self/status").exists():
        raise MachineError("/proc isn't mounted here, and all is read there: mount -t proc proc /proc")
    control = control or Path(config.control)
    status, no_daemon, is_silent = _status(control)  # first: what the kernel has is held against what it says
    with closing(Netlink()) as netlink, closing(RouteWatch()) as watch:
        config = with_names(config, netlink.altnames())
        watch.watch(netlink.l3_interfaces(lambda name: bool(config.entries(name))))
        links = netlink.facts(watch.of)
        held = netlink.held(config.role_addresses)
        table = build(config, links, held=held)
        wanted = {name for name in links if config.entries(name)}
        entries = {name: entry for name in wanted if (entry := netlink.link(links[name].ifindex)) is not None}
    unit = read_unit()
    service = service_of(unit, runs=status is not None or is_silent)
    machine, tried = _machine(config, table, links, service, sorted(wanted) if attach and status is None else ())
    ports = _ports(entries, tried, vlan_filters(table, links), named=bool(machine.bcc))
    try:
        routing = _routing(table, links)
    except OSError as error:
        raise MachineError(f"can't read from the kernel: {error.strerror or error}") from error
    facts = Facts(
        config,
        path,
        text,
        path.stat().st_mtime,
        control,
        links,
        table,
        machine,
        ports,
        status=status,
        no_daemon=no_daemon,
        is_silent=is_silent,
        sysctls=_sysctls(config, links),
        daemons=[Answerer(name, pid, unit_of(pid)) for name, pid in other_daemons(_ANSWERERS)],
        networkd=read_networkd(),
        firewall=read_firewall(),
        unit=unit,
        web=read_web_files(config),
        can_ask_routers=find("rdisc6") is not None,
        **routing,
    )
    return replace(facts, echoes=tuple(hosts.asked(facts)))


def _ports(
    entries: Mapping[str, LinkEntry], tried: Mapping[str, str], kept: Mapping[str, KeptBack], *, named: bool
) -> dict[str, Port]:
    """Of each interface what its driver and the kernel say; programs by their names where bcc is there."""
    features = xdp_features([entry.ifindex for entry in entries.values()])
    return {
        name: Port(
            entry,
            driver(name),
            features.get(entry.ifindex),
            tuple(_programs(entry.xdp, named=named)),
            receive_vlan_offload(name),
            tried.get(name),
            _at_tc(entry.ifindex) if named else (),
            kept.get(name),
        )
        for name, entry in entries.items()
    }


def _status(control: Path) -> tuple[Mapping[str, Any] | None, str, bool]:
    """What the daemon says, or why there is nothing, and whether it is there all the same."""
    try:
        found = ask(control, {"verb": "status"}, _PATIENCE)
    except MachineError as error:
        return None, str(error), isinstance(error.__cause__, TimeoutError)
    lacking = _STATUS - found.keys()
    if lacking:
        return None, f"{control}: its status lacks {', '.join(sorted(lacking))}: is it of another version?", False
    return found, "", False


def _machine(
    config: Config, table: Table, links: Mapping[str, LinkFacts], service: Service | None, ports: Sequence[str]
) -> tuple[MachineFacts, dict[str, str]]:
    """The machine, and what the drivers of some ports have said to the program."""
    bcc = no_bcc = no_ring = paranoid = ""
    program: str | None = None
    pages, missing, tried = 0, missing_capabilities(), dict[str, str]()
    try:
        bcc = str(load_bcc().__version__)
    except MachineError as error:
        no_bcc = str(error)
    if bcc and not set(missing) & {"CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"}:
        try:
            loaded = load(sizes_for([table], config.limits))
        except MachineError as error:
            program = str(error)
        else:
            program = ""
            try:
                pages, no_ring = _ring(loaded) if service is None else _ring_of(service, loaded)
                tried = {name: _tried(loaded, links[name], config.wish(name)) for name in ports}
            finally:
                loaded.close()
    with suppress(OSError):
        paranoid = Path("/proc/sys/kernel/perf_event_paranoid").read_text().strip()
    machine = MachineFacts(
        os.uname().release,
        bcc,
        no_bcc,
        missing,
        program,
        pages,
        RING_PAGES,
        no_ring,
        paranoid,
        locked_memory(),
        _RING_BYTES * (os.cpu_count() or 1),
        time.time(),
        is_clock_synchronised(),
        _distribution(),
        service,
    )
    return machine, tried


def _distribution() -> str:
    with suppress(OSError):
        its = platform.freedesktop_os_release()
        return f"{its.get('ID', '')} {its.get('VERSION_ID', '')}".strip()
    return ""


def _ring_of(service: Service, loaded: Loaded) -> tuple[int, str]:
    """What the kernel says to the service, by a child that has no more than that."""
    if lacking(service.capabilities):
        return 0, ""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            with suppress(OSError):  # this process may not be what the service is
                confine(service.capabilities, service.locked_memory)
                os.write(writing, json.dumps(_ring(loaded)).encode())
        finally:
            os._exit(0)  # whatever comes up: the rest is the parent's to do
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 (a descriptor)
        said = pipe.read()
    os.waitpid(child, 0)
    pages, no_ring = json.loads(said or '[0, ""]')
    return pages, no_ring


def _ring(loaded: Loaded) -> tuple[int, str]:
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # bcc prints each refusal there
    try:
        with closing(EventRing(loaded.maps)) as ring:
            return ring.pages, ""
    except MachineError as error:
        return 0, str(error)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def _programs(numbers: Sequence[int], *, named: bool) -> Iterator[Program]:
    for mode, number in zip(_MODES, numbers, strict=True):
        if number:
            yield Program(number, mode, program_name(number) if named else "", holders_of_program(number))


def _at_tc(ifindex: int) -> tuple[Program, ...]:
    return tuple(Program(number, "tc", program_name(number)) for number in tc_programs(ifindex))


def _tried(loaded: Loaded, link: LinkFacts, wish: Wish) -> str:
    links = Links()
    mode = AttachMode.TC if wish.attach is Attach.TC else AttachMode.NATIVE
    try:
        links.attach(Functions(loaded.fd, loaded.need_tc), link.ifindex, link.name, mode, wish.tc_order)
    except MachineError as error:
        return str(error).removeprefix(f"{link.name}: ")
    finally:
        links.close()
    return ""


def _routing(table: Table, links: Mapping[str, LinkFacts]) -> dict[str, Any]:
    """What the kernel knows of routes and neighbours, by the names of Facts."""
    names = {link.ifindex: link.name for link in links.values()}
    with closing(Inspection()) as inspection, closing(Requests()) as requests, closing(Router()) as router:
        every, neighbours = inspection.routes(), inspection.neighbours()
        routes = [each for each in every if each.type == RouteType.UNICAST]
        table_neighbours = [entry for entry, _ in neighbours]
        found = router.default_route()
        default = None if found is None else DefaultRoute(names.get(found[0], ""), found[1])
        expires = [each.expires for each in routes if not each.destination.length and each.expires is not None]
        bridges = {names[index]: Bridge(*each) for index, each in inspection.bridges().items() if index in names}
        sampled = list(samples(table, table_neighbours, inspection.way))
        is_refused = any(each.reply is not None and each.reply.type in REFUSALS for each in sampled)
        proxies = [
            (names.get(host.ifindex, str(host.ifindex)), IPv6Address(host.address))
            for host, protocol in requests.proxy_entries().items()
            if protocol != rtnetlink.PROTOCOL
        ]
        return {
            "forwards": {index: bool(router.forwards(index)) for index in names},
            "receivers": list(_receivers(router, table, links, default)),
            "default": default,
            "default_expires": min(expires, default=None),
            "routers": [
                (names[entry.ifindex], IPv6Address(entry.address))
                for entry, is_router in neighbours
                if is_router and entry.ifindex in names
            ],
            "routes": routes,
            "samples": sampled,
            "refusing": [each.destination for each in every if is_refused and each.type in REFUSALS],
            "neighbours": table_neighbours,
            "table_size": requests.neighbour_table_size(),
            "proxies": proxies,
            "bridges": bridges,
        }


def _receivers(
    router: Router, table: Table, links: Mapping[str, LinkFacts], default: DefaultRoute | None
) -> Iterator[Receiver]:
    """The L3 interfaces that router advertisements may matter on: ours, and those that have addresses by one."""
    ours = {entry.l3_ifindex for entry in table.entries.values()}
    for link in links.values():
        advertised = any(address.advertised for address in link.own(()))
        by_one = default is not None and default.advertised and default.interface == link.name
        if link.l3_ifindex(()) == link.ifindex and (link.ifindex in ours or advertised or by_one):
            heard = router.heard(link.name)
            yield Receiver(
                link.name, bool(router.forwards(link.ifindex)), router.accept_ra(link.name), advertised or by_one, heard
            )


def _sysctls(config: Config, links: Mapping[str, LinkFacts]) -> dict[str, str | None]:
    keys = ["conf/all/forwarding", "conf/all/proxy_ndp"]
    concerned = {name for name in links if config.entries(name)} | (config.via_names & links.keys())
    indexes = {index for name in concerned for index in links[name].l3.values()}
    concerned |= {link.name for link in links.values() if link.ifindex in indexes}
    concerned |= {links[name].bridge for name in concerned if links[name].bridge}
    for name in sorted(concerned):
        keys += [f"conf/{name}/{key}" for key in ("disable_ipv6", "dad_transmits", "proxy_ndp", "accept_ra")]
    return {key: read_sysctl(key) for key in keys}
