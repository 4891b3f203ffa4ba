# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration that is read, parsed and checked beside the loop, and taken in by it in small parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from npd6_xdp.core.config import Config
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_parts import Assembly, parts
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.web_config import WebConfig
from npd6_xdp.system.aside import Aside

PATIENCE = 600.0
"""Seconds. A million rules take half a minute; whoever has written what takes longer has not meant a configuration."""


_SLOWEST = 1 << 17
"""Bytes of a file that are read in a second, at the least: a million rules take half a minute on two slow processors,
where tomllib has to read them, and ten on a machine that is emulated.
"""


def seconds_to_read(file: str) -> float:
    """How much longer the reading of a file may take, by its size, than another step of a start. 0.0: there is none."""
    try:
        return min(Path(file).stat().st_size / _SLOWEST, PATIENCE)
    except OSError:
        return 0.0  # whoever reads it says why


class Source(Protocol):
    """What a configuration is read from, again and again."""

    def load(self, before: Config | None = None) -> Config:
        """What it says now, with the very rules that it had `before` where they are plain. Raises Npd6Error."""


class TomlFile(NamedTuple):
    """A file of ours: `read` has its text, or raises ConfigError, and mistakes in it are said to be at `where`.

    `read_web` has what the web configuration of that path says, or raises Npd6Error.
    """

    read: Callable[[], str]
    where: str
    read_web: Callable[[str], WebConfig]

    def load(self, before: Config | None = None) -> Config:
        """What both say now, with the very rules that it had `before` where they are plain. Raises Npd6Error."""
        config = parse(self.read(), self.where, before)
        if config.metrics_web_config:
            config = replace(config, web=self.read_web(config.metrics_web_config))
        return config


class Reading:
    """One reading, from now on, in a process of its own. `before` is what was read before, which both processes have.
    Raises MachineError if there can't be one.
    """

    def __init__(self, source: Source, before: Config, patience: float = PATIENCE) -> None:
        self._aside = Aside(lambda: parts(source.load(before), before))
        self._assembly = Assembly(before)
        self._config: Config | None = None
        self._patience = patience
        self.began = time.monotonic()

    def fileno(self) -> int:
        """Readable when there is something to take."""
        return self._aside.fileno()

    @property
    def due(self) -> float:
        """When it is to be given up (seconds, monotonic)."""
        return self.began + self._patience

    def take(self) -> Config | None:
        """Take in what has come: the configuration, once that is whole. Raises Npd6Error if it can't be used."""
        for part in self._aside.take():
            self._config = self._assembly.add(part) or self._config
        return self._config if self._aside.over else None

    def overdue(self) -> MachineError:
        """Why it is given up."""
        return MachineError(f"reading it has taken {self._patience:.0f} s, and was given up")

    def close(self) -> None:
        """Let go of it, however far it is."""
        self._aside.close()
