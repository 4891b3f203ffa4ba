# SPDX-License-Identifier: GPL-2.0-or-later
"""Method `route` against the kernel's own word, for all kinds of routes and rules: `ip route get` is the oracle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import UPSTREAM_ADDRESS, Topology
from tests.frames import ip6
from tests.netns.wire import LATE, Wire, configuration, cpu_seconds, grown, on_edge, question, scan, until

Start = Callable[..., RunningDaemon]

both = pytest.mark.parametrize("datapath", ["hybrid", "python"])
VIA = "via fe80::42 dev lan0"
NOWHERE = ("lo", "anchor0", "")


class Oracle:
    """Asks on the wire and asks the kernel, from the same source: what became of it, and what the kernel would do."""

    def __init__(self, topology: Topology, wire: Wire, running: RunningDaemon) -> None:
        self._topology = topology
        self._wire = wire
        self._running = running

    def kernel(self, target: str, via: Iterable[str] = ()) -> bool:
        """Whether the kernel delivers a packet for the target here, or sends it on by another interface."""
        command = ("ip", "-json", "-6", "route", "get", target, "from", UPSTREAM_ADDRESS, "iif", "wan0")
        done = self._topology.run("edge", *command)
        if done.returncode != 0:
            return False
        (found,) = json.loads(done.stdout)
        if via and found["dev"] not in via:
            return False
        return found.get("type", "unicast") in ("local", "anycast") or found["dev"] not in ("wan0", *NOWHERE)

    def asked(self, target: str) -> tuple[str, bool]:
        """What a question is counted as, and whether an answer comes."""
        before = self._running.solicitations()
        self._wire.advertisements(0.001)  # what is left of questions before
        self._wire.send(question(target, source=ip6(UPSTREAM_ADDRESS)))
        counted: dict[str, int] = {}

        def is_counted() -> bool:
            counted.update(grown(before, self._running.solicitations()))
            counted.pop("ignored", None)  # the upstream's own probe for its link-local address, as it starts
            return bool(counted)

        assert until(is_counted, 2.0), target
        assert list(counted.values()) == [1], (target, counted)
        (outcome,) = counted
        seconds = LATE if outcome.startswith("answered") else 0.02
        return outcome, bool(self._wire.advertisements(seconds, enough=1))

    def agrees(self, target: str, via: Iterable[str] = ()) -> bool:
        """Both say the same, and the count says what was done."""
        outcome, answered = self.asked(target)
        assert answered == (outcome in ("answered_xdp", "answered_python")), target
        assert answered or outcome == "absent", (target, outcome)
        return answered == self.kernel(target, via)


@pytest.fixture
def prepared(topology: Topology) -> Topology:
    """The edge with an interface that leads nowhere, since this kernel may have no dummies, and a route of its own."""
    on_edge(topology, "link add anchor0 type ifb", "link set anchor0 up", f"-6 route add 2001:db8:1000::/64 {VIA}")
    return topology


@contextmanager
def oracle(topology: Topology, running: RunningDaemon) -> Iterator[Oracle]:
    with Wire(topology) as wire:
        yield Oracle(topology, wire, running)


# what, the commands for `ip -6`, whether a target in 2001:db8:100::/64 is there by them
ROUTES: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("through a gateway", (f"route add 2001:db8:100::/64 {VIA}",), True),
    ("on lo, as an aggregate's anchor", ("route add 2001:db8:100::/64 dev lo",), False),
    ("on an interface that leads nowhere", ("route add 2001:db8:100::/64 dev anchor0",), False),
    ("the prefix of an address on lo", ("address add 2001:db8:100::1/64 dev lo",), False),
    ("AnyIP", ("route add local 2001:db8:100::/64 dev lo",), True),
    ("AnyIP in the main table", ("route add local 2001:db8:100::/64 dev lo table main",), True),
    ("AnyIP of one address", ("route add local 2001:db8:100::9/128 dev lo",), True),
    ("AnyIP on an interface that leads nowhere", ("route add local 2001:db8:100::/64 dev anchor0",), True),
    ("anycast", ("route add anycast 2001:db8:100::9/128 dev lo",), True),
    ("SRv6", (f"route add 2001:db8:100::/64 encap seg6 mode encap segs fc00::1 {VIA}",), True),
    ("SRv6 back to the upstream",
     (f"route add 2001:db8:100::/64 encap seg6 mode encap segs fc00::1 via {UPSTREAM_ADDRESS} dev wan0",), False),
    ("by source", (f"route add 2001:db8:100::/64 from 2001:db8::/64 {VIA}",), True),
    ("by another source", (f"route add 2001:db8:100::/64 from 2001:db8:aaaa::/64 {VIA}",), False),
    ("a nexthop object", ("nexthop add id 7 via fe80::42 dev lan0", "-6 route add 2001:db8:100::/64 nhid 7"), True),
    ("a blackhole nexthop object", ("-6 nexthop add id 8 blackhole", "-6 route add 2001:db8:100::/64 nhid 8"), False),
    ("unreachable", ("route add unreachable 2001:db8:100::/64",), False),
    ("blackhole", ("route add blackhole 2001:db8:100::/64",), False),
    ("prohibit", ("route add prohibit 2001:db8:100::/64",), False),
    ("throw, and then a route",
     ("route add throw 2001:db8:100::/64 table 100", "rule add pref 100 lookup 100",
      f"route add 2001:db8:100::/64 {VIA}"), True),
    ("throw, and then none", ("route add throw 2001:db8:100::/64 table 100", "rule add pref 100 lookup 100"), False),
    ("wg-quick's way: a default route behind the main table's other routes",
     (f"route add default {VIA} table 200", "rule add pref 200 lookup main suppress_prefixlength 0",
      "rule add pref 201 lookup 200"), True),
    ("the same, leading back to the upstream",
     (f"route add 2001:db8:100::/24 {VIA}", f"route add default via {UPSTREAM_ADDRESS} dev wan0 table 200",
      "rule add pref 200 lookup main suppress_prefixlength 24", "rule add pref 201 lookup 200"), False),
    ("a rule by source", (f"route add default {VIA} table 200", "rule add pref 200 from 2001:db8::/64 lookup 200"),
     True),
    ("a rule by another source",
     (f"route add default {VIA} table 200", "rule add pref 200 from 2001:db8:aaaa::/64 lookup 200"), False),
    ("a rule by interface", (f"route add default {VIA} table 200", "rule add pref 200 iif wan0 lookup 200"), True),
    ("a rule by mark", (f"route add default {VIA} table 200", "rule add pref 200 fwmark 7 lookup 200"), False),
    ("a rule that prohibits",
     (f"route add 2001:db8:100::/64 {VIA}", "rule add pref 200 to 2001:db8:100::/48 prohibit"), False),
)  # fmt: skip
TARGET, PLAIN, BACK = "2001:db8:100::9", "2001:db8:1000::9", "2001:db8:ffff::9"


def undone(command: str) -> str:
    """What takes back what ip(8) was told."""
    taken = command.replace(" add ", " del ", 1)
    return " ".join(taken.split()[: taken.split().index("id") + 2]) if "nexthop add" in command else taken


@both
def test_what_is_answered_is_what_the_kernel_would_deliver_or_send_on_whatever_routes_and_rules_there_are(
    prepared: Topology, daemon: Start, datapath: str
) -> None:
    """Each kind comes while the daemon runs, and goes again: what it is told by then counts, and nothing lasts."""
    by_xdp = "answered_xdp" if datapath == "hybrid" else "answered_python"
    running = daemon(configuration("2001:db8::/32 route", datapath=f'"{datapath}"'))
    with oracle(prepared, running) as asker:
        for what, commands, wanted in ROUTES:
            words = [command if command.startswith(("nexthop", "-6")) else f"-6 {command}" for command in commands]
            on_edge(prepared, *words)
            assert asker.kernel(TARGET) is wanted, what
            assert until(lambda w=wanted: asker.asked(TARGET)[1] is w, 5.0), what  # type: ignore[misc]  # XDP may be told in a moment
            for target in (TARGET, PLAIN, BACK):
                assert asker.agrees(target), (what, target)
            on_edge(prepared, *map(undone, reversed(words)))
            assert until(lambda: asker.asked(TARGET)[1] is False, 5.0), what
            assert until(lambda: asker.asked(PLAIN)[0] == by_xdp, 5.0), f"{what}: nothing of it is left"


@both
def test_what_was_asked_for_is_kept_and_decided_in_xdp_until_routes_change(
    prepared: Topology, daemon: Start, datapath: str
) -> None:
    by_xdp = "answered_xdp" if datapath == "hybrid" else "answered_python"
    on_edge(prepared, "-6 route add local 2001:db8:100::/64 dev lo")
    running = daemon(configuration("2001:db8::/32 route", datapath=f'"{datapath}"'))
    with oracle(prepared, running) as asker:
        assert asker.asked(TARGET) == ("answered_python", True)
        assert [asker.asked(TARGET) for _ in range(3)] == [(by_xdp, True)] * 3
        assert [asker.asked(BACK) for _ in range(2)] == [("absent", False)] * 2
        on_edge(prepared, "-6 route add blackhole 2001:db8:100::/120")
        on_edge(prepared, "-6 route add 2001:db8:eeee::/64 dev lan0")
        assert until(lambda: asker.asked(TARGET)[0] == "answered_python", 5.0), "asked anew: something has changed"
        for _ in range(3):
            on_edge(prepared, "-6 route del local 2001:db8:100::/64 dev lo")
            assert asker.asked(TARGET) == ("absent", False), "the very next answer"
            on_edge(prepared, "-6 route add local 2001:db8:100::/64 dev lo")
            assert asker.asked(TARGET)[1], "the very next answer"


def test_a_via_counts_and_local_delivery_is_behind_none_but_lo(prepared: Topology, daemon: Start) -> None:
    on_edge(
        prepared,
        "-6 route add local 2001:db8:100::/64 dev lo",
        "-6 route add local 2001:db8:101::/64 dev lo",
        f"-6 route add 2001:db8:102::/64 {VIA}",
        "-6 route add 2001:db8:103::/64 dev anchor0",
        "-6 route add 2001:db8:104::/64 dev lo",
    )
    rules = ("2001:db8:100::/64 route via=lan0", "2001:db8:101::/64 route via=lo,anchor0", "2001:db8::/32 route")
    more = ("2001:db8:103::/64 route via=anchor0", "2001:db8:104::/64 route via=lo,lan0")
    with oracle(prepared, daemon(configuration(*rules, *more))) as asker:
        assert asker.asked("2001:db8:100::9") == ("absent", False)
        assert asker.asked("2001:db8:101::9") == ("answered_python", True)
        assert asker.asked("2001:db8:102::9") == ("answered_xdp", True)
        assert asker.asked("2001:db8:103::9") == ("absent", False)
        assert asker.asked("2001:db8:104::9") == ("absent", False)


def test_without_forwarding_what_is_delivered_here_is_there_and_what_would_be_forwarded_is_not(
    prepared: Topology, daemon: Start
) -> None:
    on_edge(prepared, "-6 route add local 2001:db8:100::/64 dev lo")
    running = daemon(configuration("2001:db8::/32 route"))
    with oracle(prepared, running) as asker:
        for forwarding in (0, 1, 0):
            prepared.sysctl("edge", "net/ipv6/conf/all/forwarding", forwarding)
            assert asker.asked(TARGET)[1]
            assert asker.asked(PLAIN)[1] is bool(forwarding)


def test_monitor_consumes_nothing_of_what_it_would_have_asked_about(prepared: Topology, daemon: Start) -> None:
    on_edge(prepared, "-6 route add local 2001:db8:100::/64 dev lo")
    running = daemon(configuration("2001:db8::/32 route", datapath='"monitor"'))
    with oracle(prepared, running) as asker:
        assert asker.asked(TARGET) == ("monitored", False)
        assert asker.asked(PLAIN) == ("monitored", False)


def test_a_scan_where_the_kernel_has_to_be_asked_is_bounded_and_where_not_it_makes_no_event(
    prepared: Topology, daemon: Start
) -> None:
    count = 3000
    running = daemon(configuration("2001:db8::/32 route", events_per_source="500"))

    took = spent = 0.0

    def outcomes(first: int) -> dict[str, int]:
        nonlocal took, spent
        before, began, cpu = running.solicitations(), time.monotonic(), cpu_seconds(running)
        with Wire(prepared) as wire:
            wire.send(*scan(count, "2001:db8:ffff::", first << 32))
            running.settle()
            spent = cpu_seconds(running) - cpu
            assert until(lambda: sum(grown(before, running.solicitations()).values()) == count)
        took = time.monotonic() - began
        return grown(before, running.solicitations())

    assert outcomes(1) == {"absent": count}
    assert outcomes(2) == {"absent": count}
    assert spent <= 0.1, "as good as nothing"
    on_edge(prepared, "-6 rule add pref 200 lookup main suppress_prefixlength 0")
    with oracle(prepared, running) as asker:
        assert until(lambda: asker.asked(PLAIN)[0] == "answered_python", 5.0)
        assert asker.asked(PLAIN)[0] == "answered_xdp"
        found = outcomes(3)
        assert set(found) == {"absent", "rate_limited"}
        assert found["absent"] <= 500 * (took + 2), "as many as one source may send up in the time that it took"
        assert asker.asked(PLAIN)[0] == "answered_xdp", "who was known before is answered under a scan, too"
        on_edge(prepared, "-6 rule del pref 200 lookup main suppress_prefixlength 0")
        assert until(lambda: outcomes(4) == {"absent": count}, 2.0)


def test_changes_of_routes_that_follow_each_other_cost_the_daemon_next_to_nothing_while_it_keeps_answers(
    prepared: Topology, daemon: Start
) -> None:
    on_edge(prepared, "-6 route add local 2001:db8:100::/64 dev lo")
    running = daemon(configuration("2001:db8::/32 route"))
    batch = prepared.directory / "routes"
    lines = [f"2001:db8:{0x2000 + number:x}::/64 dev lan0\n" for number in range(20_000)]
    batch.write_text("".join(f"route add {line}" for line in lines) + "".join(f"route del {line}" for line in lines))
    with oracle(prepared, running) as asker:
        assert [asker.asked(TARGET)[0] for _ in range(2)] == ["answered_python", "answered_xdp"]
        before, began = cpu_seconds(running), time.monotonic()
        prepared.run("edge", "ip", "-6", "-batch", str(batch), check=True, timeout=600)
        assert cpu_seconds(running) - before <= 0.05 + 0.005 * (time.monotonic() - began)
        assert asker.asked(TARGET)[1]
