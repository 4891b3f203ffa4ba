# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts of this machine that a table is built of, and when they are to be looked at again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import BrokenSource, MachineError
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.logged import fields
from npd6_xdp.core.roles import Held
from npd6_xdp.core.routes import RoutingFlag
from npd6_xdp.core.said import Said
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Decision
from npd6_xdp.daemon.guests import Guests
from npd6_xdp.daemon.in_force import NOTHING, Change, Follower, InForce
from npd6_xdp.daemon.loop import Loop
from npd6_xdp.daemon.turns import SLICE
from npd6_xdp.system.netlink.links import Netlink
from npd6_xdp.system.netlink.routes import RouteWatch

log = logging.getLogger("npd6-xdp")

_RETRY = 1.0  # seconds after which the machine is looked at again, where that has failed
_LOOK_FOR_ROUTES = 0.01  # seconds between two looks whether routes have been read
_MOST_ROUTES = 10.0  # seconds that they may take; then they are read in one go


class NextLook:
    """When the machine is to be looked at again: `at` (seconds, monotonic); None: it is as it was."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.not_before = 0.0
        self.roles = False
        """Whether roles are to be looked at, beside all else and at once."""
        self._said = Said()

    def later(self) -> None:
        """Something has changed."""
        if self.at is None:
            self.at = self.not_before

    def at_once(self) -> None:
        """Something has changed that somebody waits for."""
        self.at = time.monotonic()

    def in_a_while(self) -> None:
        """Something has gone wrong."""
        self.at = time.monotonic() + _RETRY

    def retry(self, error: MachineError) -> None:
        """The machine's changes couldn't be taken in, and are tried again; said once, until it goes well."""
        if self._said.note(what=str(error)):
            log.error("%s; continuing with what is known", error, extra=fields(error=str(error)))
        self.in_a_while()

    def went_well(self) -> None:
        """They were taken in: what retry() said is over."""
        self._said.over()


class Machine(Follower):
    """Links, addresses, routes, and macvlan or ipvlan devices on ports. `look` is told when any of them has changed."""

    def __init__(self, loop: Loop, look: NextLook) -> None:
        self._loop = loop
        self._look = look
        self._in_force = NOTHING
        self._tell_flags: Callable[[RoutingFlag], object] = lambda _: None
        self.netlink = Netlink()
        try:
            self._routes = RouteWatch()
        except BaseException:
            self.netlink.close()
            raise
        self._guests = Guests()
        self._guests.begin()

    def close(self) -> None:
        """Close the sockets."""
        self._routes.close()
        self.netlink.close()

    def join(self, loop: Loop, tell_flags: Callable[[RoutingFlag], object]) -> None:
        """Have the loop wait for changes. `tell_flags` is called with what of routes and rules there is."""
        self._tell_flags = tell_flags
        loop.watch("links", lambda: [(self.netlink.fileno(), self.on_link_change)], self._reopen_links)
        loop.at(lambda: 0.0 if self.netlink.unfinished else None, lambda _: self.on_link_change(), "links")
        loop.watch("routes", self._readable_routes, self._reopen_routes)
        loop.at(lambda: self._guests.due, self._look_for_guests, "links")
        loop.at(lambda: self._routes.due, lambda _: self._routes.refresh(), "routes")

    # --- facts ---

    def meant(self, written: Config) -> Mapping[str, str]:
        """The names that are meant now by the alternative ones that a configuration has."""
        names = self.netlink.altnames()
        return {other: name for other, name in names.items() if other in written.names}

    def watch(self, config: Config, change: Change) -> Steps[None]:
        """Have the routes of a configuration's ports watched.

        Where somebody has asked for the change, all are read when this ends, and nothing else waits for that; those of
        the one in force are watched until the other one is, so that nothing is to be read again if it comes to nothing.
        Else they are read between other work.
        """
        if not change.asked:
            self._watch(config)
            return
        change.undo.callback(self._watch_again)
        self._watch(config, self._in_force.config)
        patience = time.monotonic() + _MOST_ROUTES
        while not self._is_read(config) and time.monotonic() < patience:
            change.asleep_until = time.monotonic() + _LOOK_FOR_ROUTES
            yield
        change.wake()
        if not self._is_read(config):
            self._watch(config, self._in_force.config, wait=True)

    def _watch(self, *configs: Config, wait: bool = False) -> None:
        self._routes.watch({ifindex for config in configs for ifindex in self._ports(config)}, wait=wait)
        self._tell_flags(self._routes.flags)  # with other sockets than before, all was read anew

    def _watch_again(self) -> None:
        self._watch(self._in_force.config)

    def _ports(self, config: Config) -> set[int]:
        """The interfaces that frames on a configuration's ports come in by."""
        return self.netlink.l3_interfaces(lambda name: bool(config.entries(name)))

    def _is_read(self, config: Config) -> bool:
        """Whether all routes of them are known."""
        return all(map(self._routes.is_read, self._ports(config)))

    def facts(self, config: Config) -> Steps[dict[str, LinkFacts]]:
        """The facts of now. Ports whose next hops are yet to be read are as not there, if they weren't before."""
        links, before = (yield from self.netlink.finding_facts(self._routes.of)), self._in_force.links
        known = {
            name: link
            for name, link in links.items()
            if name in before or not config.entries(name) or all(map(self._routes.is_read, link.l3.values()))
        }
        return self._guests.beside(known)

    def held(self, config: Config) -> Held:
        """What this machine has now of what a configuration's entries are active with."""
        return self.netlink.held(config.role_addresses) | self.netlink.devices(config.device_macs)

    @property
    def routing_flags(self) -> RoutingFlag:
        """What of routes and rules there is that bpf_fib_lookup() can't decide by."""
        return self._routes.flags

    def apply(self, new: InForce) -> None:
        """These facts are in force."""
        self._in_force = new

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """Routes of ports that only the old one had don't matter any more."""
        if new.config is not old.config:
            self._watch(new.config)
            yield

    # --- changes ---

    def take_in(self, change: Change) -> None:
        """Take in what was announced of links for a change, and all where that was lost.

        A change that somebody has asked for goes by what is known where what was lost can't be read at the moment, and
        what has come is taken in besides. Else that raises MachineError.
        """
        try:
            changed = self.netlink.on_change(time.monotonic() + SLICE)
            if change.asked and changed:
                self._look.later()  # what that asked for may come to nothing
        except BrokenSource as error:
            self._loop.failed("links", error)  # and the source itself will be, too, until it is opened anew
        except MachineError as error:
            if not change.asked:
                raise
            self._look.retry(error)
        self._look_at_roles()

    def _look_at_roles(self) -> None:
        """Until a role that has changed is followed, nobody answers, or two do."""
        if self.held(self._in_force.config) != self._in_force.held:
            self._look.roles = True

    def look_for_guests(self) -> None:
        """An unknown target was asked for on a port that may carry macvlan or ipvlan devices: look for these."""
        if self._guests.look():
            self._look.at_once()

    def _look_for_guests(self, now: float) -> None:
        if self._guests.tick(now):
            self._look.at_once()

    def _readable_routes(self) -> list[tuple[int, Callable[[], None]]]:
        changed, dumped = self._routes.filenos()
        return [(changed, self._on_route_change), (dumped, self._on_route_dump)]

    def on_link_change(self) -> None:
        """Something was announced of links or addresses."""
        if Decision.NEIGHBOUR in self._in_force.table.occurring:  # hosts are looked for
            self._guests.expect()
        try:
            if self.netlink.on_change(time.monotonic() + SLICE):
                self._look.later()
        except BrokenSource:
            raise  # the loop counts, and opens another
        except MachineError as error:  # what was lost can't be read at the moment
            self._look.retry(error)
        self._look_at_roles()

    def _on_route_change(self) -> None:
        if self._routes.on_change():
            self._look.later()
        self._tell_flags(self._routes.flags)

    def _on_route_dump(self) -> None:
        if self._routes.on_dump():
            self._look.later()
        self._tell_flags(self._routes.flags)

    # --- sources opened anew, because they fail all the time ---

    def _reopen_links(self) -> None:
        self.netlink.close()
        self.netlink = Netlink(self.netlink)
        self._look.later()

    def _reopen_routes(self) -> None:
        self._routes.close()
        self._routes = RouteWatch()
        self._look.later()
