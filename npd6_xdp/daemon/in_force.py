# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon goes by, and the three verbs by which each of its rooms goes from one to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from npd6_xdp.core.absent import absent_names
from npd6_xdp.core.config import Config
from npd6_xdp.core.judgement import none_exists
from npd6_xdp.core.links import LinkFacts
from npd6_xdp.core.roles import Held
from npd6_xdp.core.steps import Steps
from npd6_xdp.core.table import Table
from npd6_xdp.daemon.lines import some


@dataclass(frozen=True, slots=True)
class InForce:
    """A configuration, the facts of the links, and the table that was built of the two.

    `config` has the names of interfaces that are `meant` where `written`, the configuration as it was read, has
    alternative ones. `held` is what this machine has of what the configuration's entries are active with.
    """

    written: Config
    config: Config
    links: Mapping[str, LinkFacts]
    table: Table
    meant: Mapping[str, str] = field(default_factory=dict)
    held: Held = frozenset()
    names: Mapping[int, str] = field(init=False, repr=False)
    """The interfaces' names, by index."""

    def __post_init__(self) -> None:
        """Say the names once for all rooms."""
        object.__setattr__(self, "names", {link.ifindex: link.name for link in self.links.values()})

    def is_but_for_roles(self, other: InForce) -> bool:
        """Whether it is as another, but for what this machine has of what entries are active with."""
        is_same = self.config is other.config and self.links is other.links
        return is_same and self.table.decisions is other.table.decisions

    @property
    def rules(self) -> str:
        """How many rules there are, in words."""
        count = len(self.table.rules)
        return f"{count} rule{'' if count == 1 else 's'}"

    @property
    def vrfs(self) -> dict[int, int]:
        """The routing tables of those links that belong to a VRF."""
        return {link.ifindex: link.table for link in self.links.values() if link.table}

    @property
    def absent(self) -> Sequence[str]:
        """The names and globs of [[interface]]s for which there is no interface on this machine."""
        return absent_names(self.config, self.links)

    @property
    def present(self) -> Sequence[str]:
        """The interfaces of this machine that could be ports."""
        return sorted(link.name for link in self.links.values() if not link.why_no_port)

    @property
    def lack(self) -> str:
        """Why there is no port at all, in words; "" where there is one."""
        if self.table.entries:
            return ""
        if absent := self.absent:
            return none_exists(absent, self.present)
        unfit = dict.fromkeys(each.name for each in self.config.interfaces)
        return f"no configured interface can be used: {some([*unfit])}"

    @property
    def summary(self) -> str:
        """How many rules there are and on which ports, in words."""
        if lack := self.lack:
            return lack
        return f"{self.rules} on {some([*dict.fromkeys(entry.port for entry in self.table.entries.values())])}"


NO_TABLE = Table({}, {}, {}, {}, {})
NOTHING = InForce(Config(()), Config(()), {}, NO_TABLE)
"""Before the first one."""


@dataclass(slots=True)
class Change:
    """One that is under way. `undo` lets go of what was made for it, if it comes to nothing.

    `asked`: somebody has asked for it, by a start or a reload, so what can't be as the configuration wants it is its
    end. Else the machine has changed, and what can't be now is tried again later. `tries`: how often it is made, at
    most, where the machine changes meanwhile; what has then changed is taken in afterwards.
    """

    undo: ExitStack
    asked: bool
    tries: int = 1
    asleep_until: float | None = field(default=None)
    """Until then (seconds, monotonic) there is nothing to do for it, unless it is woken."""

    def wake(self) -> None:
        """It can go on."""
        self.asleep_until = None


class Follower:
    """A room that goes by what is in force; of the three verbs, it has those that it needs."""

    commits = False
    """Whether its apply() may still be refused. It comes first, then; so one room may say so, at most."""

    def prepare(self, new: InForce, change: Change) -> Steps[None]:
        """Whatever takes long or may fail, before it is in force, bit by bit; nothing of it shows until then.

        Raises Npd6Error: then nothing changes. It may be called again, for another one, within the same change.
        """
        yield from ()

    def apply(self, new: InForce) -> None:
        """Go by it from now on: all rooms do within one turn of the loop, under the lock that whoever reads counters
        takes.

        That can't fail, but in the one that `commits`: it raises MachineError, and then nothing has changed.
        """

    def settle(self, old: InForce, new: InForce) -> Steps[None]:
        """It is in force in all rooms: what only the old one needed goes, bit by bit.

        Raises MachineError: it stays in force, and rooms settle again soon.
        """
        yield from ()
