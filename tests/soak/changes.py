# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens meanwhile: reloads, links that flap, hosts that move, routes and neighbours that come and go."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_MAC
from npd6_xdp.tools.control import ask
from tests.soak.ground import Ground
from tests.soak.traffic import HOST_NUMBERS, HOSTS, IGNORED, OWN, PROXIED, ROUTED, STATIC

_OTHERS = 5000
"""Prefixes beside, of which another configuration has others: with so many, what is kept of a table that went isn't
found by Python's garbage collector (npd6_xdp/daemon/garbage.py).
"""
_GROWN = 12_000
"""The same, so that the maps have to grow."""


def configuration(*, variant: bool = False, others: int = _OTHERS, which: int = 0) -> str:
    """All methods on the untagged entry; tags lead to others: answered in XDP, by Python, or not at all (monitor).

    Of the `others`, none is in another `which` (16 bits).
    """
    routes = str(not variant).lower()
    untagged = [
        f'prefix = "{STATIC}/64"\nmethod = "static"\nexclude = ["::dead"]',
        f'prefix = "{HOSTS}/64"\nmethod = "neighbour"\nvia = ["lan0", "lan1"]\nhost_routes = {routes}',
        f'prefix = "{ROUTED}/64"\nmethod = "route"' + ('\nvia = ["lan0"]' if variant else ""),
        f'prefix = "{PROXIED}/64"\nmethod = "kernel"',
        f'prefix = "{IGNORED}/64"\nmethod = "ignore"',
    ]
    if variant:
        untagged[0] += '\ndad = "defend"\nrouter = false'
        untagged.append(f'prefix = "{STATIC}42/128"\nmethod = "static"')
    prefixes = (f"2001:db8:{0x1000 + number:x}:{which:x}::/64" for number in range(others))
    untagged += [f'prefix = "{prefix}"\nmethod = "static"' for prefix in prefixes]
    static, hosts = untagged[0], untagged[1].replace("true", "false")
    entries = (
        ("untagged", 'events_per_source = 20000\ncollect_targets = 256\ndad = "ignore"', untagged),
        ("100", "", [static, untagged[2]]),
        ("100.7", 'na_source = "interface"', [static, hosts]),
        ("300", 'datapath = "python"\nevents_per_source = 20000', [static]),
        ("400", 'datapath = "monitor"', [static, untagged[2]]),
    )
    lines = ["[limits]", "pending = 64", "kernel_entries = 8", "kernel_entry_age = 5"]
    for vlan, keys, rules in entries:
        lines += ["[[interface]]", 'name = "wan0"', 'attach = "native"', f'vlan = "{vlan}"', keys]
        for rule in rules:
            lines += ["[[interface.rule]]", rule]
    return "\n".join(lines) + "\n"


class Changes:
    """Does one thing or another, drawn at random; `done` counts them. calm() leads back to where it began."""

    def __init__(self, ground: Ground, running: RunningDaemon, seed: int) -> None:
        self._ground = ground
        self._running = running
        self._random = random.Random(seed)  # noqa: S311
        self._which = 0  # of the other rules
        self.done: Counter[str] = Counter()

    def happen(self, *, port: bool) -> None:
        """Let something happen. `port`: it may befall the port itself, where frames are lost on the cable then."""
        choices: list[tuple[str, Callable[[], object]]] = [
            *(3 * [("reload", self._reload)]),
            ("reload to others", self._reload_to_others),
            ("SIGHUP", lambda: self._running.process.send_signal(signal.SIGHUP)),
            ("status", lambda: ask(self._running.control, {"verb": "status"})),
            ("link flap", self._flap),
            *(3 * [("move", self._move)]),
            *(2 * [("route", self._route)]),
            *(2 * [("neighbour", self._neighbour)]),
            ("address", self._address),
            ("prefix", self._prefix),
        ]
        if port:
            choices += 2 * [("port flap", self._flap_port)]
        name, call = self._random.choice(choices)
        call()
        self.done[name] += 1

    def grow(self) -> None:
        """A reload for which the maps have to grow: a larger program takes over from the one that is asked.

        No later one has more rules, so the maps of the programs that take over then are no larger.
        """
        self._load(configuration(variant=True, others=_GROWN))
        self.done["growth"] += self._running.log.count("the kernel maps have grown")

    def calm(self) -> None:
        """As at the start: configuration (but for which other rules it has), links, addresses, routes and hosts."""
        self._load(configuration(which=self._which))
        self._ground.edge(
            *(f"link set {interface} up" for interface in ("wan0", "lan0", "lan1")),
            f"address replace {OWN}/64 dev lan0 nodad",
            "address replace 2001:db8::2/64 dev wan0 nodad",
            f"route replace {ROUTED}/64 dev lan0",
            f"route replace {HOSTS}/64 dev lan1 metric 2048",
            *(f"address del {STATIC}{number:x}/128 dev wan0" for number in range(8)),
            *(f"neigh del {HOSTS}{number:x} dev lan1" for number in HOST_NUMBERS),
        )

    def _load(self, text: str) -> None:
        self._running.write(text)
        ask(self._running.control, {"verb": "reload"})

    def _reload(self) -> None:
        self._load(configuration(variant=self._random.random() < 0.6, which=self._which))

    def _reload_to_others(self) -> None:
        self._which = self._random.getrandbits(16)
        self._reload()

    def _flap(self) -> None:
        lan = self._random.choice(("lan0", "lan1"))
        self._ground.edge(f"link set {lan} down", f"link set {lan} up")

    def _flap_port(self) -> None:
        self._ground.edge("link set wan0 down", "link set wan0 up", "address replace 2001:db8::2/64 dev wan0 nodad")

    def _move(self) -> None:
        self._ground.place(self._random.choice(HOST_NUMBERS), self._random.choice(("eth0", "eth1")))

    def _route(self) -> None:
        what = (f"{ROUTED}/64 dev lan0", f"{ROUTED}/64 dev lan1", f"blackhole {ROUTED}/64")
        self._ground.edge(f"route replace {self._random.choice(what)}")

    def _neighbour(self) -> None:
        number = self._random.choice(HOST_NUMBERS)
        lan = self._random.choice(("lan0", "lan1"))
        if self._random.random() < 0.5:
            self._ground.edge(f"neigh replace {HOSTS}{number:x} lladdr {HOST_MAC} dev {lan} nud stale")
        else:
            self._ground.edge(f"neigh del {HOSTS}{number:x} dev {lan}")

    def _address(self) -> None:
        what = self._random.choice(("replace", "del"))
        nodad = " nodad" if what == "replace" else ""
        self._ground.edge(f"address {what} {STATIC}{self._random.randrange(8):x}/128 dev wan0{nodad}")

    def _prefix(self) -> None:
        self._ground.edge(f"address del {OWN}/64 dev lan0", f"address replace {OWN}/64 dev lan0 nodad")
