# SPDX-License-Identifier: GPL-2.0-or-later
"""Hand-overs under load: questions by each method and pings through a host route, while one daemon follows another.

    python -m tests.netns.handovers [--rounds N] [--rate N] [--how restart|kill|hang]

It runs the unit under a systemd of its own, as the tests do, which do it a few times at a lower rate. Exit status 1 if
one question was left unanswered, or answered twice, a ping was lost, the link was another one, or the sender came to
less than 95 % of its rate: then nothing is shown.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from itertools import cycle
from tempfile import TemporaryFile

from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.netns.service import UnderSystemd
from tests.netns.wire import Flood, Wire, configuration, flood, hearing, on_edge, question, scan, until
from tests.netns.xdp_links import handed_over, link_ids

CONTROL = '[daemon]\ncontrol = "/run/npd6-xdp/control.sock"\n'
PROXIED = "2001:db8:2::7"
PINGED = "2001:db8:5::9"
"""A host that nothing but its own route leads to."""
RULES = (
    "2001:db8:1::/64 neighbour via=lan0",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 static",
    "2001:db8:4::/64 route via=lan0",
    "2001:db8:5::/64 neighbour via=lan0 host_routes=true",
)
CONFIG = CONTROL + configuration(*RULES)
WATCHED = "WatchdogSec=5\nTimeoutAbortSec=1\n"
ENOUGH = 0.95  # of the rate
TOO_SLOW = ": the sender was too slow, so nothing is shown; on an idle machine, or with a lower --rate, it is"
_STATIC, _ROUTED, _KNOWN = 500, 300, 100  # of a thousand; what is left is for the kernel's own proxy


def set_out(topology: Topology) -> None:
    """The rest of what CONFIG speaks of."""
    on_edge(topology, "route add 2001:db8:4::/64 dev lan0")
    topology.run("host", "ip", "address", "add", f"{PINGED}/128", "dev", "eth0", "nodad", check=True)
    topology.run("upstream", "ip", "route", "add", "2001:db8:5::/64", "dev", "eth0", check=True)


def make_known(topology: Topology, wire: Wire) -> None:
    """Have each host found, and each entry made, that the questions are for."""
    for target in (HOST_ADDRESS, PROXIED, PINGED):
        assert wire.ask(question(target)) is not None, target
    routed, proxied = ("-6", "route", "show", PINGED), ("-6", "neigh", "show", "proxy")
    assert until(lambda: bool(topology.ip("edge", *routed)) and bool(topology.ip("edge", *proxied)))


def _frames() -> list[bytes]:
    found = [*scan(_STATIC, "2001:db8:3::"), *scan(_ROUTED, "2001:db8:4::")]
    found += [question(HOST_ADDRESS)] * _KNOWN
    found += [question(PROXIED)] * (1000 - len(found))
    random.Random(6).shuffle(found)  # noqa: S311
    return found


class Asking:
    """What was asked for, and how often each target was answered."""

    def __init__(self, frames: list[bytes]) -> None:
        self._frames = frames
        self.flooding = Flood()
        self.answers: Counter[bytes] = Counter()
        self.lost_pings = 0

    @property
    def sent(self) -> int:
        return self.flooding.sent

    def unequal(self) -> dict[str, tuple[int, int]]:
        """The targets that weren't answered as often as asked for: how often each was."""
        whole, rest = divmod(self.sent, len(self._frames))
        asked: Counter[bytes] = Counter()
        for number, frame in enumerate(self._frames):
            asked[frame[62:78]] += whole + (number < rest)
        return {
            target.hex(":", 2): (asked[target], self.answers[target])
            for target in asked
            if asked[target] != self.answers[target]
        }

    @property
    def held(self) -> bool:
        """Whether each question was answered once, and no ping was lost."""
        return not self.unequal() and not self.lost_pings

    def __str__(self) -> str:
        short = sum(max(0, asked - answered) for asked, answered in self.unequal().values())
        return (
            f"{self.sent} asked ({self.flooding.rate:.0f}/s), {self.answers.total()} answered, {short} unanswered,"
            f" {self.lost_pings} pings lost"
        )


@contextmanager
def asking(topology: Topology, per_second: int) -> Iterator[Asking]:
    """Ask, and ping, beside what the block does."""
    frames = _frames()
    targets = {frame[62:78] for frame in frames}
    found = Asking(frames)

    def hear(frame: bytes) -> None:
        if frame[62:78] in targets:
            found.answers[frame[62:78]] += 1

    with ExitStack() as pings, hearing(topology, hear):
        said = pings.enter_context(TemporaryFile())
        ping = topology.popen("upstream", "ping", "-6", "-n", "-i", "0.02", PINGED, stdout=said)
        try:
            with flood(topology, cycle(frames), per_second) as found.flooding:
                yield found
            until(lambda: found.answers.total() >= found.sent, 3.0)
            ping.send_signal(signal.SIGINT)
            ping.wait(timeout=60)
            said.seek(0)
            found.lost_pings = lost_pings(said.read().decode())
        finally:
            ping.kill()


def lost_pings(said: str) -> int:
    """How many echo requests had no reply, by what ping printed; the very last may be on its way when ping ends."""
    heard = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", said)}
    counted = re.search(r"(\d+) packets transmitted", said)
    assert counted is not None, said
    return int(counted[1]) - len(heard - {int(counted[1])}) - 1


def restart(service: UnderSystemd) -> None:
    assert service.systemctl("restart", "npd6-xdp").returncode == 0


def kill(service: UnderSystemd) -> None:
    _end(service, signal.SIGKILL)


def hang(service: UnderSystemd) -> None:
    """It stands, until the watchdog ends it."""
    _end(service, signal.SIGSTOP)


def _end(service: UnderSystemd, by: signal.Signals) -> None:
    before = service.show("NRestarts")
    service.send(by)
    assert service.comes_to(NRestarts=f"!{before}", ActiveState="active")


HOW: Mapping[str, Callable[[UnderSystemd], None]] = {"restart": restart, "kill": kill, "hang": hang}


def hand_over(topology: Topology, service: UnderSystemd, ways: Iterable[str], per_second: int) -> Asking:
    """Have one daemon follow another in each of these ways, one after the other, under so many questions a second."""
    with Wire(topology) as wire:
        make_known(topology, wire)
    with asking(topology, per_second) as found:
        for how in ways:
            with handed_over(topology):
                HOW[how](service)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.netns.handovers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="how often, each way")
    parser.add_argument("--rate", type=int, default=20_000, help="questions a second")
    parser.add_argument("--how", choices=[*HOW], action="append", help="in which way; all, if none is named")
    arguments = parser.parse_args()
    failed = False
    for how in arguments.how or HOW:
        with Topology() as topology:
            set_out(topology)
            drop_in = WATCHED if how == "hang" else ""
            with redirect_stdout(sys.stderr), UnderSystemd(topology, CONFIG, drop_in) as service:
                found = hand_over(topology, service, [how] * arguments.rounds, arguments.rate)
                (link,) = link_ids(topology).values()
        reached = found.flooding.rate >= ENOUGH * arguments.rate
        failed |= not (found.held and reached)
        print(f"{how}: {arguments.rounds} times: {found}; the link's id was {link} throughout")
        print(f"{how}: asked {found.flooding.rate:,.0f}/s of {arguments.rate:,}" + ("" if reached else TOO_SLOW))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
