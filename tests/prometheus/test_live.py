# SPDX-License-Identifier: GPL-2.0-or-later
"""A real Prometheus scrapes the real daemon: alerts fire and clear by what happens, and panels have something to show.

One scene for all tests here, since Prometheus takes 5 s to begin scraping. Each leaves a daemon that answers.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path

import pytest
from scapy.layers.inet6 import IPv6ExtHdrHopByHop

from docs.metrics import labels, page
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.test_failures import FAULTY, ROOT
from tests.netns.wire import Wire, configuration, flood, on_edge, question, scan, until
from tests.prometheus.files import FAMILIES, alerts, dashboard, marks, queries, substituted
from tests.prometheus.server import Prometheus

RULES = (
    "2001:db8:1::/64 static",
    "2001:db8:2::/64 neighbour via=lan0",
    "2001:db8:3::/64 kernel",
    "2001:db8:4::/64 route",
)
ACTIVE = "2001:db8:a::1"  # the address that makes this edge the active one
ROLE = {"active_with": f'"{ACTIVE}"'}
USUAL = configuration(*RULES, attach='"native"', events_per_source="50", **ROLE)
GENERIC = configuration(*RULES, attach='"generic"', events_per_source="50", **ROLE)
BY_PYTHON = "[limits]\nevents_per_second = 10000000\n" + configuration(attach='"native"', datapath='"python"')
WARNING = configuration(*RULES, "2001:db8:5::/64 neighbour via=lan7", attach='"native"', **ROLE)  # which isn't there
BROKEN = configuration("2001:db8:1::/64 nowhere")
BY_TAP = USUAL + configuration("2001:db8:6::/64 static", attach='"generic"').replace('"wan0"', '"tap0"')
SMALL = "[limits]\nkernel_entries = 1\n" + USUAL
HOST_ROUTES = configuration("2001:db8:2::/64 neighbour via=lan0 host_routes=true", attach='"native"')

BY_TRAFFIC = ("Npd6InvalidSolicitations", "Npd6RateLimited", "Npd6ScanUnderWay", "Npd6UpstreamCacheAtRisk")
BY_RELOADS = ("Npd6ReloadFailed",)
MODE = "Npd6GenericMode"
BY_TABLES = FULL, NO_SPACE, MISSING = "Npd6TableNearlyFull", "Npd6TableFull", "Npd6HostRouteMissing"
DROPPED = "Npd6AnswersDropped"
FORWARDING = "Npd6ForwardingOff"
BY_LOSSES = LOST, FAILED = "Npd6EventsLost", "Npd6SendFailed"
IN_VAIN, HANGS = "Npd6Unanswered", "Npd6NotAnswering"
BY_LINKS = DOWN, DETACHED = "Npd6InterfaceDown", "Npd6Detached"
NOBODY = "Npd6NoActiveEdge"
BY_STATE = MISTAKE, WARNED, UNREAD = "Npd6InternalError", "Npd6Warning", "Npd6LogDropped"
ABSENT = "Npd6Absent"

FIRE, CLEAR = 10.0, 15.0
"""Seconds within which an alert fires, and clears: its window is 5 s, and it waits for one more."""


class Scene:
    """The edge's daemon, which may be another one after a while, and the Prometheus beside it."""

    def __init__(self, topology: Topology, stack: ExitStack) -> None:
        self.topology = topology
        self._stack = stack
        self.prometheus = stack.enter_context(Prometheus(topology))
        self.faults = topology.directory / "faults"
        """How often the daemon is to fail where it looks at the machine's state: see faulty.py."""
        self.hold = Path(f"{self.faults}.hold")
        """While it is there, the daemon's loop hangs from SIGUSR2 on."""
        on_edge(topology, f"address add {ACTIVE}/128 dev lan0 nodad")
        self.daemon = self.start()

    def start(self, text: str = USUAL) -> RunningDaemon:
        program = (sys.executable, str(FAULTY), "npd6_xdp.daemon.outlook:Outlook.look", str(self.faults))
        running = RunningDaemon(self.topology, text, program=program, environment={"PYTHONPATH": str(ROOT)})
        self.daemon = self._stack.enter_context(running)
        return self.daemon

    def restart(self, text: str) -> None:
        """Another one, which has counted nothing."""
        self.daemon.stop()
        self.start(text)

    def reload(self, text: str) -> bool:
        """Whether the daemon took it."""
        self.daemon.write(text)
        return self.daemon.command("reload").returncode == 0

    def fires(self, *names: str) -> bool:
        return until(lambda: set(names) <= self.prometheus.firing(), FIRE)

    def clears(self, *names: str) -> bool:
        return until(lambda: not set(names) & self.prometheus.firing(), CLEAR)

    def all_clear(self) -> bool:
        return until(lambda: not self.prometheus.firing(), CLEAR)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Topology() as topology, ExitStack() as stack:
        scene = Scene(topology, stack)
        assert until(lambda: bool(scene.prometheus.query("npd6_build_info")), 15.0), scene.prometheus.log
        yield scene
        print(scene.daemon.log, scene.prometheus.log)


@contextmanager
def traffic(topology: Topology) -> Iterator[None]:
    """Of each nine solicitations five scan a prefix of live hosts; one each is for static, Python, kernel, invalid."""
    hosts, absent = scan(1 << 20), scan(1 << 20, "2001:db8:2::")
    others = (
        question("2001:db8:1::42", headers=[IPv6ExtHdrHopByHop()]),
        question("2001:db8:3::42"),
        question("2001:db8:1::42", hop_limit=254),
    )
    mixed = (frame for frames in zip(hosts, *map(repeat, others), *[absent] * 5, strict=False) for frame in frames)
    with flood(topology, mixed, 540, lossy=True):
        yield


def test_what_is_scraped_is_what_the_reference_has(scene: Scene) -> None:
    reference = page()
    for name, family in FAMILIES.items():
        kinds = {"counter": f"{name}_total", "histogram": f"{name}_count", "summary": f"{name}_count"}
        sample = kinds.get(family.type, name)
        found = scene.prometheus.found(sample)
        assert found, name
        for series, _ in found:
            assert set(series) - {"__name__", "job", "instance"} == set(labels(family))
            for label in {"outcome", "reason", "path", "attach", "datapath", "state", "kind", "table"} & set(series):
                assert re.search(rf"^\| `{label}` \|.*`{series[label]}`", reference, re.MULTILINE), series
    begun = {name for name in scene.prometheus.label_values("__name__", '{job="npd6-xdp"}') if name.startswith("npd6_")}
    assert {re.sub("_(total|bucket|sum|count)$", "", name) for name in begun} == set(FAMILIES)


def test_alerts_about_traffic_and_reloads_fire_and_clear(scene: Scene) -> None:
    assert scene.all_clear(), scene.prometheus.firing()
    with traffic(scene.topology):
        assert scene.reload(GENERIC)
        assert not scene.reload(BROKEN)
        assert scene.fires(*BY_TRAFFIC, *BY_RELOADS), scene.prometheus.firing()
    assert scene.reload(USUAL)
    assert scene.clears(*BY_RELOADS), scene.prometheus.firing()
    assert scene.all_clear(), scene.prometheus.firing()


def test_an_alert_about_generic_mode_fires_where_native_mode_may_be_and_only_there(scene: Scene) -> None:
    assert scene.all_clear(), scene.prometheus.firing()
    on_edge(scene.topology, "tuntap add dev tap0 mode tap")
    assert scene.reload(BY_TAP.replace('"native"', '"generic"'))
    assert scene.fires(MODE), scene.prometheus.firing()
    assert len(scene.prometheus.found('npd6_interface_info{attach="generic"}')) == 2
    generic = scene.prometheus.found(f'ALERTS{{alertname="{MODE}"}}')
    assert {series["interface"] for series, _ in generic} == {"tap0"}, "wan0 is a veth"
    assert scene.reload(USUAL)
    on_edge(scene.topology, "link del tap0")
    assert scene.all_clear(), scene.prometheus.firing()


def test_an_alert_about_answers_that_the_driver_drops_fires_and_clears(scene: Scene) -> None:
    assert scene.all_clear(), scene.prometheus.firing()
    with Wire(scene.topology) as wire:
        assert wire.ask(question("2001:db8:1::42"), 0.5) is None, "the peer of this veth has no program"

        def drops_and_that_fires() -> bool:
            wire.send(*[question("2001:db8:1::42")] * 5)
            return DROPPED in scene.prometheus.firing()

        assert until(drops_and_that_fires, FIRE), scene.prometheus.firing()
    assert scene.all_clear(), scene.prometheus.firing()


def test_alerts_about_tables_and_host_routes_fire_and_clear(scene: Scene) -> None:
    scene.restart(SMALL)
    with Wire(scene.topology) as wire:
        wire.send(question("2001:db8:3::77"))
        assert scene.fires(FULL), scene.prometheus.firing()
        assert NO_SPACE not in scene.prometheus.firing(), "it is full, and nobody was refused"

        def asks_and_that_fires() -> bool:
            wire.send(*scan(5, "2001:db8:3::"))
            return NO_SPACE in scene.prometheus.firing()

        assert until(asks_and_that_fires, FIRE), scene.prometheus.firing()
    scene.restart(HOST_ROUTES)  # another process: that some were refused is a problem for five minutes
    on_edge(
        scene.topology,
        "neigh replace 2001:db8:2::77 lladdr 02:00:00:00:00:77 nud permanent dev lan0",
        "-6 route replace 2001:db8:2::77/128 dev wan0 proto static metric 1024",
    )
    assert scene.fires(MISSING), scene.prometheus.firing()
    on_edge(scene.topology, "-6 route del 2001:db8:2::77/128 dev wan0", "neigh del 2001:db8:2::77 dev lan0")
    assert scene.reload(USUAL)
    assert scene.all_clear(), scene.prometheus.firing()


def test_an_alert_tells_that_forwarding_is_off_until_it_is_on(scene: Scene) -> None:
    assert scene.all_clear(), scene.prometheus.firing()
    scene.topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
    try:
        assert scene.fires(FORWARDING), scene.prometheus.firing()
        assert WARNED not in scene.prometheus.firing(), "one cause, one alert"
    finally:
        scene.topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 1)
    assert scene.all_clear(), scene.prometheus.firing()


def test_alerts_about_losses_and_interfaces_fire_and_clear(scene: Scene) -> None:
    assert scene.reload(BY_PYTHON)
    frames = list(scan(4_000))
    with Wire(scene.topology) as wire:
        wire.deafen()

        def loses_and_that_fires() -> bool:
            """The rings hold 16,384 events a CPU; on a busy machine the kernel drops many frames before them. But the
            daemon must not be stopped for as long as the alert looks back: there would be one sample of its counters.
            """
            scene.daemon.process.send_signal(signal.SIGSTOP)
            ends = time.monotonic() + 2.0
            for _ in range(35):
                wire.send(*frames)
                if time.monotonic() > ends:
                    break
            scene.daemon.process.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + FIRE
            while LOST not in (firing := scene.prometheus.firing()) and time.monotonic() < deadline:
                time.sleep(0.1)
            return LOST in firing

        assert until(loses_and_that_fires), scene.prometheus.firing()
        # what is in the ring when the port goes down can't be sent any more
        scene.daemon.process.send_signal(signal.SIGSTOP)
        wire.send(*frames)
        on_edge(scene.topology, "link set wan0 down")
        scene.daemon.process.send_signal(signal.SIGCONT)
    assert scene.fires(FAILED), scene.prometheus.firing()
    assert scene.fires(DOWN), scene.prometheus.firing()
    on_edge(scene.topology, "link set wan0 name wan9")
    assert scene.fires(DETACHED), scene.prometheus.firing()
    on_edge(scene.topology, "link set wan9 name wan0", "link set wan0 up")
    assert scene.reload(USUAL)
    assert scene.all_clear(), scene.prometheus.firing()


def test_alerts_about_mistakes_of_ours_warnings_and_a_log_that_is_lost_fire_and_clear(scene: Scene) -> None:
    assert scene.all_clear(), scene.prometheus.firing()
    scene.faults.write_text("1")
    assert scene.fires(MISTAKE), scene.daemon.log
    assert scene.reload(WARNING)
    assert scene.fires(WARNED), scene.daemon.log
    pid = scene.daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (scene.daemon.log_file.stat().st_size, before[1]))  # a full disk
    scene.daemon.process.send_signal(signal.SIGUSR1)
    assert scene.fires(UNREAD), scene.prometheus.firing()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert scene.reload(USUAL)
    assert scene.all_clear(), scene.prometheus.firing()


def test_an_alert_tells_that_nothing_is_answered_until_something_is(scene: Scene) -> None:
    scene.restart(USUAL)  # one that has answered nobody in the last five minutes
    with Wire(scene.topology) as wire:

        def asks_in_vain_and_that_fires() -> bool:
            """Again and again: what was counted before the first sample is no increase."""
            wire.send(*scan(60, "2001:db8:9::"))
            return IN_VAIN in scene.prometheus.firing()

        assert until(asks_in_vain_and_that_fires, FIRE), scene.prometheus.firing()
        wire.send(question("2001:db8:1::42"))
    assert scene.all_clear(), scene.prometheus.firing()


def test_an_alert_tells_that_the_main_loop_hangs_which_leaves_the_metrics_as_they_are(scene: Scene) -> None:
    assert scene.all_clear(), scene.prometheus.firing()
    scene.hold.touch()
    scene.daemon.process.send_signal(signal.SIGUSR2)
    assert scene.fires(HANGS), scene.prometheus.firing()
    assert ABSENT not in scene.prometheus.firing()
    scene.hold.unlink()
    assert scene.all_clear(), scene.prometheus.firing()


def test_an_alert_tells_that_no_edge_is_active_until_one_is(scene: Scene) -> None:
    assert scene.clears(NOBODY)
    on_edge(scene.topology, f"address del {ACTIVE}/128 dev lan0")
    assert scene.fires(NOBODY), scene.prometheus.firing()
    on_edge(scene.topology, f"address add {ACTIVE}/128 dev lan0 nodad")
    assert scene.all_clear(), scene.prometheus.firing()


def test_an_alert_tells_that_the_daemon_was_killed_until_there_is_another(scene: Scene) -> None:
    assert scene.clears(ABSENT)
    scene.daemon.kill()
    assert scene.fires(ABSENT), scene.prometheus.firing()
    scene.start()
    assert scene.all_clear(), scene.prometheus.firing()


def test_every_alert_is_made_to_fire_here() -> None:
    several = *BY_TRAFFIC, *BY_RELOADS, *BY_TABLES, *BY_LOSSES, *BY_LINKS, *BY_STATE
    singly = MODE, DROPPED, FORWARDING, IN_VAIN, HANGS, NOBODY, ABSENT
    assert {*several, *singly} == set(alerts())


asked_here = partial(substituted, rate_interval="5s", span="1m")


def test_every_panel_has_series_to_show_for_all_and_for_one_instance_and_interface(scene: Scene) -> None:
    reloads = asked_here(dict(marks())["Reloads"], instance=".+")
    # so that there is an alert to show; right after a start it isn't marked
    assert until(lambda: scene.reload(WARNING) and bool(scene.prometheus.numbers(reloads)), 15.0)
    offered = {each["name"]: each["definition"] for each in dashboard()["templating"]["list"] if "definition" in each}
    assert offered["instance"] == "label_values(npd6_build_info, instance)"
    (instance,) = scene.prometheus.label_values("instance", "npd6_build_info")
    of = asked_here('npd6_interface_up{instance=~"$instance"}', instance=instance)
    assert offered["interface"] == 'label_values(npd6_interface_up{instance=~"$instance"}, interface)'
    assert "wan0" in scene.prometheus.label_values("interface", of)
    empty: list[str] = []

    def shown() -> bool:
        empty.clear()
        for title, expression in (*queries(), *(each for each in marks() if each[0] != "Failed reloads")):
            for variables in ({"instance": ".+", "interface": ".+"}, {"instance": instance, "interface": "wan0"}):
                asked = asked_here(expression, **variables)
                assert "$" not in asked
                if not scene.prometheus.numbers(asked):
                    empty.append(f"{title}: {asked}")
        return not empty

    with traffic(scene.topology):
        assert until(shown, 10.0), empty
    assert scene.reload(USUAL)
