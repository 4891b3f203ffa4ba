# SPDX-License-Identifier: GPL-2.0-or-later
"""Mistakes of ours in a daemon at work: said with a traceback once, counted and survived; no end without a reason."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.core.test_mrd import solicitation
from tests.netns.test_hidden_tags import tag_beside
from tests.netns.verb import verb
from tests.netns.wire import Asker, Wire, configuration, cpu_seconds, on_edge, question, says, until

Start = Callable[..., RunningDaemon]

FAULTY = Path(__file__).with_name("faulty.py")
ROOT = Path(__file__).resolve().parents[2]
TOLD_PAUSE = 0.1  # seconds in which a tap tells of one frame (TOLD_PAUSE of bpf/ns_filter.c)
ALWAYS = 10**9


class Fault:
    """A daemon that fails at a place, as often as told; `trigger` has it come there."""

    def __init__(self, topology: Topology, start: Start, place: str, trigger: Callable[[Fault, int], None]) -> None:
        self._file = topology.directory / f"fault-{len(list(topology.directory.iterdir()))}"
        self._trigger = trigger
        self._triggered = 0
        self.topology = topology
        self.stack = ExitStack()
        self.tagging: Wire | None = None
        keys = {"datapath": '"python"', "multicast_router": "true"}
        text = configuration("2001:db8:1::/64 static", "2001:db8:2::/64 neighbour via=lan0", **keys)
        text += configuration("2001:db8:3::/64 static", attach='"generic"').replace("wan0", "lan0")  # so it has a tap
        program = (sys.executable, str(FAULTY), place, str(self._file))
        self.running = start(text, program=program, environment={"PYTHONPATH": str(ROOT)})

    def happens(self, times: int) -> None:
        """The next `times` calls fail, of which this brings one about; 0: none fails any more."""
        self._file.write_text(str(times))
        self.trigger()

    def trigger(self) -> None:
        self._triggered += 1
        self._trigger(self, self._triggered)

    def left(self) -> int:
        return int(self._file.read_text() or -1)  # it is being written

    def counted(self, where: str) -> int:
        return int(self.running.metrics()["npd6_internal_errors_total", frozenset({("where", where)})])

    def answers(self) -> bool:
        with Wire(self.topology) as wire:  # not while a program is loaded anew, which takes a busy machine its time
            return until(lambda: wire.ask(question("2001:db8:1::42"), 1.0) is not None)


def change_link(fault: Fault, n: int) -> None:
    on_edge(fault.topology, f"link set dev lan0 mtu {1400 + n % 90}")


def change_route(fault: Fault, n: int) -> None:
    on_edge(fault.topology, f"route replace 2001:db8:f{n:x}::/48 via 2001:db8::1 dev wan0")


def change_neighbour(fault: Fault, n: int) -> None:
    on_edge(fault.topology, f"neigh replace fe80::{n:x} lladdr 02:00:00:00:00:{n:02x} dev lan0")


def switch_forwarding(fault: Fault, n: int) -> None:
    fault.topology.sysctl("edge", "net/ipv6/conf/lan0/forwarding", (n + 1) % 2)


def ask_status(fault: Fault, _: int) -> None:
    verb(fault.running, "status")


def send_signal(fault: Fault, _: int) -> None:
    fault.running.process.send_signal(signal.SIGUSR1)


def solicit(fault: Fault, n: int) -> None:
    with Wire(fault.topology) as wire:
        wire.send(question(f"2001:db8:1::{n:x}"))


def hide_tag(fault: Fault, n: int) -> None:
    """On the other port, which falls silent for it, as it should."""
    if fault.tagging is None:
        fault.tagging = fault.stack.enter_context(tag_beside(fault.topology, "eth0", "host"))
    else:
        time.sleep(2 * TOLD_PAUSE)
    fault.tagging.send(question(f"2001:db8:9::{n:x}"))  # no rule's: what is passed, the tap looks at


def ask_for_routers(fault: Fault, n: int) -> None:
    with Wire(fault.topology) as wire:
        wire.send(solicitation(f"fe80::{n:x}"))


def change_rule(fault: Fault, n: int) -> None:
    on_edge(fault.topology, f"-6 rule add pref {1000 + n} lookup main")


SOURCES = {
    "links": ("npd6_xdp.daemon.machine:Machine.on_link_change", change_link),
    "routes": ("npd6_xdp.daemon.machine:Machine._on_route_change", change_route),
    "neighbours": ("npd6_xdp.daemon.hosts:Hosts.on_change", change_neighbour),
    "outlook": ("npd6_xdp.daemon.outlook:Outlook._on_readable", switch_forwarding),
    "tags": ("npd6_xdp.daemon.tags:Tags._on_readable", hide_tag),
    "mrd": ("npd6_xdp.daemon.mrd:RouterDiscovery._on_solicitations", ask_for_routers),
    "control": ("npd6_xdp.system.control:ControlServer._accept", ask_status),
    "signals": ("npd6_xdp.system.wakeup:Wakeup.take", send_signal),
    "rings": ("npd6_xdp.system.bpf.events:EventRing.read", solicit),
    # what the machine says is such a fault, too
    "links broken": ("npd6_xdp.system.netlink.links:Netlink.on_change=broken", change_link),
    "routes broken": ("npd6_xdp.system.netlink.dumps:Dump.recv=broken", change_rule),
}


@pytest.mark.parametrize("where", SOURCES)
def test_a_source_that_fails_once_goes_on_thrice_is_opened_anew_and_always_ends_it_with_a_reason(
    topology: Topology, daemon: Start, where: str
) -> None:
    place, trigger = SOURCES[where]
    fault = Fault(topology, daemon, place, trigger)
    with fault.stack:
        where, _, broken = where.partition(" ")
        fails_and_is_opened_anew(fault, where, "BrokenSource" if broken else "RuntimeError")


def fails_and_is_opened_anew(fault: Fault, where: str, error: str) -> None:
    running = fault.running
    fault.happens(1)
    assert until(lambda: fault.left() == 0)
    assert fault.answers()
    assert fault.counted(where) == 1
    assert says(running, f"internal error ({where}): {error}: a fault for the test")
    assert says(running, "Traceback")

    fault.happens(3)
    more = 0

    def is_reopened() -> bool:
        nonlocal more
        left = fault.left()
        if "reopening it" in running.log:
            return True
        if left == 0:  # on a busy machine, they were more than a second apart
            fault.happens(3)
            more += 3
        return False

    assert until(is_reopened)
    more -= fault.left()
    fault.happens(0)
    for _ in range(3):  # the new source is as good as the old one
        fault.trigger()
    assert fault.answers()
    assert fault.counted(where) == 4 + more
    assert f"{where} failed 3 times within 1 s" in running.log
    assert says(running, "Traceback")
    assert verb(running, "status").returncode == 0

    fault.happens(ALWAYS)
    assert until(lambda: running.process.poll() is not None)
    assert running.process.returncode == 1
    assert f"{where} failed 3 times within 1 s ({error}: a fault for the test)" in running.log.splitlines()[-1]
    assert running.log.splitlines()[-1].endswith("although it has just been reopened: ending")
    assert ALWAYS - fault.left() <= 8  # it didn't spin


@contextmanager
def calm(running: RunningDaemon) -> Iterator[None]:
    """Within, the daemon takes next to no processor time."""
    before = cpu_seconds(running)
    yield
    assert cpu_seconds(running) - before < 0.6


def let_pass(_: Fault, __: int) -> None:
    """It comes there by itself."""


def reload(fault: Fault, _: int) -> None:
    verb(fault.running, "reload")


def give_address(fault: Fault, n: int) -> None:
    on_edge(fault.topology, f"address add 2001:db8:1::{n + 0x100:x}/128 dev wan0 nodad")


HANDLED = {
    "events": ("npd6_xdp.core.responder:Responder.answer_one", solicit, 4),
    "table": ("npd6_xdp.daemon.counts:Counts.apply", give_address, 2),
    "reload": ("npd6_xdp.system.bpf.program:Program.apply", reload, 1),
}


@pytest.mark.parametrize("where", HANDLED)
def test_what_fails_in_the_middle_of_an_answer_or_a_change_is_made_good(
    topology: Topology, daemon: Start, where: str
) -> None:
    place, trigger, times = HANDLED[where]
    fault = Fault(topology, daemon, place, trigger)
    running = fault.running
    fault.happens(times)
    if where == "events":
        # the readable way, where the short one fails; an event that doesn't come alone goes another way
        assert all(fault.answers() for _ in takewhile(lambda _: fault.left(), range(10 * times)))
    assert until(lambda: fault.left() == 0)
    assert fault.answers()
    assert fault.counted(where) >= 1
    assert says(running, "Traceback")
    if where != "events":  # a program of its own got the table whole
        assert until(lambda: "the XDP program was loaded again" in running.log)
        on_edge(topology, "address add 2001:db8:1::99/128 dev wan0 nodad")
        with Wire(topology) as wire:
            assert until(lambda: Asker(wire, running).outcome("2001:db8:1::99") == "own")
        assert fault.answers()
        assert verb(running, "reload").returncode == 0
    assert running.stop() == 0


@pytest.mark.parametrize("whose", ["ours", "refused"])
def test_a_reload_that_fails_in_the_middle_leaves_the_old_configuration_whatever_changes_then(
    topology: Topology, daemon: Start, whose: str
) -> None:
    place = "npd6_xdp.system.bpf.program:Program.apply" + ("=refused" if whose == "refused" else "")
    fault = Fault(topology, daemon, place, reload)
    running = fault.running
    running.write('[daemon]\n[metrics]\nlisten = "[::1]:9847"\n' + configuration("2001:db8:3::/64 static"))
    fault.happens(1)
    assert until(lambda: "reload: the old configuration stays" in running.log)
    assert running.log.count("Traceback") == (whose == "ours")
    with Wire(topology) as wire:
        for n in (1, 2):
            on_edge(topology, f"address add 2001:db8:1::{n:x} dev wan0 nodad")
            assert until(lambda n=n: Asker(wire, running).outcome(f"2001:db8:1::{n:x}") == "own")  # type: ignore[misc]
            assert wire.ask(question("2001:db8:1::42")) is not None
            assert wire.ask(question("2001:db8:3::42"), 0.2) is None
        assert verb(running, "reload").returncode == 0
        assert wire.ask(question("2001:db8:1::42"), 0.2) is None
        assert wire.ask(question("2001:db8:3::42")) is not None
    assert "npd6_" in running.metrics_text(port=9847)
    assert running.stop() == 0


def test_a_due_call_that_always_fails_is_counted_each_second_and_all_else_goes_on(
    topology: Topology, daemon: Start
) -> None:
    fault = Fault(topology, daemon, "npd6_xdp.daemon.resolution:Resolution.tick", let_pass)
    began = time.monotonic()
    fault.happens(ALWAYS)
    with Wire(topology) as wire:

        def has_failed_twice() -> bool:
            wire.send(
                question("2001:db8:2::1")
            )  # to be resolved, if the kernel has space: it is looked after each second
            return fault.counted("neighbours") >= 2

        assert until(has_failed_twice)
    with calm(fault.running):
        assert fault.answers()
    assert fault.counted("neighbours") <= time.monotonic() - began + 2
    assert fault.running.log.count("Traceback") == 1
    assert fault.running.stop() == 0
