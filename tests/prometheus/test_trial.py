# SPDX-License-Identifier: GPL-2.0-or-later
"""As an operator at three in the morning has it: faults, one after the other, and what page, alerts and log say of it.

Nobody is told which it is. So each has to name this one and no other, within a minute; and once it is mended, nothing
is said any more. The page is looked at in a browser; the alerts are the shipped ones, pending or firing, in a
Prometheus that is in a hurry (with its own pace, one is pending after half a minute).
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.browser import browser
from tests.netns.others import Others
from tests.netns.test_failures import FAULTY, ROOT
from tests.netns.test_page import needs_browser
from tests.netns.wire import Wire, configuration, on_edge, question, scan, until
from tests.prometheus.server import Prometheus

SPACE = 20  # hosts
USUAL = (
    # few pending ones: for which any neighbour table has space, which all namespaces share
    f"[limits]\npending = 16\nneighbours = {SPACE}\nhost_route_keep = 0\n"
    + configuration(
        "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
        "2001:db8:2::/64 kernel",
        "2001:db8:3::/64 static",
        "2001:db8:4::/64 route",
        "2001:db8:5::/64 neighbour via=lan1",
    )
    + configuration("2001:db8:6::/64 static", attach='"native"').replace("wan0", "wan1")
)
BROKEN = USUAL.replace('"route"', '"rout"')
FORWARDING = "net/ipv6/conf/all/forwarding"
HOST = "2001:db8:1::77"
MINUTE = 60.0

pytestmark = [needs_browser, pytest.mark.needs_table]


class Scene:
    """A daemon, a Prometheus beside it, and the page in a browser."""

    def __init__(self, topology: Topology, directory: Path, stack: ExitStack) -> None:
        self.topology = topology
        for name in ("wan1", "lan1"):
            on_edge(topology, f"link add {name} type veth peer name {name}-peer", f"link set {name}-peer up")
            on_edge(topology, f"link set {name} up")
        faults = topology.directory / "faults"
        self.hold = Path(f"{faults}.hold")
        program = (sys.executable, str(FAULTY), "npd6_xdp.daemon.outlook:Outlook.look", str(faults))
        running = RunningDaemon(topology, USUAL, program=program, environment={"PYTHONPATH": str(ROOT)})
        self.daemon = stack.enter_context(running)
        self.prometheus = stack.enter_context(Prometheus(topology))
        self.page = stack.enter_context(browser(topology, directory))
        self.page.open()

    def reload(self, text: str) -> None:
        self.daemon.write(text)
        self.daemon.command("reload")

    def said(self) -> tuple[str, list[str], set[str]]:
        """What there is to see: the page's head, what stands below, and the alerts."""
        return self.page.text("#state span"), self.page.texts("#notes li"), self.prometheus.alerts()

    def is_clear(self) -> bool:
        return self.said() == ("working", [], set())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Topology() as topology, ExitStack() as stack:
        scene = Scene(topology, tmp_path_factory.mktemp("trial"), stack)
        assert until(lambda: bool(scene.prometheus.query("npd6_build_info")), 15.0), scene.prometheus.log
        yield scene
        print(scene.daemon.log)


# --- what is made, and mended ---


@contextmanager
def forwarding_is_switched_off(scene: Scene) -> Iterator[None]:
    scene.topology.sysctl("edge", FORWARDING, 0)
    try:
        yield
    finally:
        scene.topology.sysctl("edge", FORWARDING, 1)


@contextmanager
def a_broken_file_is_loaded(scene: Scene) -> Iterator[None]:
    scene.reload(BROKEN)
    try:
        yield
    finally:
        scene.reload(USUAL)


@contextmanager
def a_via_interface_is_gone(scene: Scene) -> Iterator[None]:
    on_edge(scene.topology, "link set lan1 down", "link set lan1 name gone1")
    try:
        yield
    finally:
        on_edge(scene.topology, "link set gone1 name lan1", "link set lan1 up")


@contextmanager
def anothers_program_sits_where_ours_is_to_be(scene: Scene) -> Iterator[None]:
    """It was there first, when the interface came back."""
    on_edge(scene.topology, "link set wan1 down", "link set wan1 name gone1")
    with Others(scene.topology, tc=False, interface="gone1"):
        on_edge(scene.topology, "link set gone1 name wan1", "link set wan1 up")
        yield


@contextmanager
def the_cable_is_pulled(scene: Scene) -> Iterator[None]:
    scene.topology.run("upstream", "ip", "link", "set", "eth0", "down", check=True)
    try:
        yield
    finally:
        scene.topology.run("upstream", "ip", "link", "set", "eth0", "up", check=True)


@contextmanager
def anothers_route_is_in_the_place_of_a_hosts(scene: Scene) -> Iterator[None]:
    host = f"{HOST} lladdr 02:00:00:00:00:77 nud permanent dev lan0"
    on_edge(scene.topology, f"neigh replace {host}")
    assert until(lambda: bool(scene.topology.ip("edge", "-6", "route", "show", "table", "all", f"{HOST}/128")))
    on_edge(scene.topology, f"-6 route replace {HOST}/128 dev wan0 proto static metric 1024")
    try:
        yield
    finally:
        on_edge(scene.topology, f"-6 route del {HOST}/128 dev wan0", f"neigh del {HOST} dev lan0")


@contextmanager
def a_table_is_nearly_full(scene: Scene) -> Iterator[None]:
    hosts = [f"2001:db8:5::{number:x}" for number in range(1, SPACE)]
    on_edge(
        scene.topology, *(f"neigh replace {host} lladdr 02:00:00:00:00:55 dev lan1 nud permanent" for host in hosts)
    )
    try:
        yield
    finally:
        on_edge(scene.topology, *(f"neigh del {host} dev lan1" for host in hosts))


@contextmanager
def nothing_that_is_asked_for_is_answered(scene: Scene) -> Iterator[None]:
    """The upstream takes another prefix for ours than the file has."""
    with Wire(scene.topology) as wire:
        wire.send(*scan(60, "2001:db8:9::"))
        try:
            yield
        finally:
            wire.send(question("2001:db8:3::1"))


@contextmanager
def the_main_loop_hangs(scene: Scene) -> Iterator[None]:
    scene.hold.touch()
    scene.daemon.process.send_signal(signal.SIGUSR2)
    try:
        yield
    finally:
        scene.hold.unlink()


@contextmanager
def the_process_is_stopped(scene: Scene) -> Iterator[None]:
    scene.daemon.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        yield
    finally:
        time.sleep(max(0.0, 11.0 - (time.monotonic() - stopped)))  # less than 10 s is nothing that it tells later
        scene.daemon.process.send_signal(signal.SIGCONT)


class Fault(NamedTuple):
    """What is made; the page's head, a pattern of what stands below it, the alert's name, and a pattern of the log's
    line. Who hangs can't write any: `afterwards` is one that is there once it is mended.
    """

    make: Callable[[Scene], AbstractContextManager[None]]
    head: str
    note: str
    alert: str
    log: str
    afterwards: str = ""


DEGRADED, ILL = "degraded: 1 problem", "not answering"
HUNG = "the main loop was stuck for .* s"
FAULTS = [
    Fault(
        forwarding_is_switched_off,
        DEGRADED,
        "wan0: forwarding is off.*sysctl -w net.ipv6.conf.all.forwarding=1",
        "Npd6ForwardingOff",
        "wan0: forwarding is off",
    ),
    Fault(
        a_broken_file_is_loaded,
        DEGRADED,
        r"the last reload failed.*interface\[0\].rule\[3\].method",
        "Npd6ReloadFailed",
        r"interface\[0\].rule\[3\].method",
    ),
    Fault(
        a_via_interface_is_gone, DEGRADED, "via lan1: no such interface", "Npd6Warning", "via lan1: no such interface"
    ),
    Fault(
        anothers_program_sits_where_ours_is_to_be,
        DEGRADED,
        "wan1 is not attached: nothing is answered there",
        "Npd6Detached",
        "wan1: .*program",
    ),
    Fault(
        the_cable_is_pulled, DEGRADED, "wan0 is down: nothing is answered there", "Npd6InterfaceDown", "wan0: .*down"
    ),
    Fault(
        anothers_route_is_in_the_place_of_a_hosts,
        DEGRADED,
        "1 host route is missing",
        "Npd6HostRouteMissing",
        f"lan0: another route is in the place of the host route to {HOST}",
    ),
    Fault(
        a_table_is_nearly_full,
        DEGRADED,
        "limits.neighbours is nearly full",
        "Npd6TableNearlyFull",
        "limits.neighbours is nearly full: 19 of 20",
    ),
    Fault(
        nothing_that_is_asked_for_is_answered,
        DEGRADED,
        "none of 60 solicitations .* was answered: unmatched 60",
        "Npd6Unanswered",
        "none of 60 solicitations .* was answered: unmatched 60",
    ),
    Fault(the_main_loop_hangs, ILL, "the main loop has been stuck for", "Npd6NotAnswering", "", HUNG),
    Fault(the_process_is_stopped, ILL, "The daemon doesn't answer this page", "Npd6Absent", "", HUNG),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.make.__name__)
def test_page_alert_and_log_name_a_fault_and_no_other_within_a_minute(scene: Scene, fault: Fault) -> None:
    assert until(scene.is_clear, 20.0), (scene.said(), scene.daemon.log)
    before = len(scene.daemon.log)

    def is_named() -> bool:
        head, notes, alerts = scene.said()
        return (
            (head, alerts) == (fault.head, {fault.alert})
            and len(notes) == 1
            and re.search(fault.note, notes[0], re.DOTALL) is not None
            and re.search(fault.log, scene.daemon.log[before:]) is not None
        )

    with fault.make(scene):
        began = time.monotonic()
        while not is_named():
            assert time.monotonic() - began < MINUTE, (scene.said(), scene.daemon.log[before:])
            time.sleep(0.2)
        print(f"{fault.make.__name__}: named after {time.monotonic() - began:.1f} s")
    assert until(scene.is_clear, 20.0), (scene.said(), scene.daemon.log[before:])
    assert until(lambda: re.search(fault.afterwards, scene.daemon.log[before:]) is not None), scene.daemon.log[before:]
