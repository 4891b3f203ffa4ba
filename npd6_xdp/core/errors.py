# SPDX-License-Identifier: GPL-2.0-or-later
"""Every error that a user can meet, as one tree.

    Npd6Error                  exit 1: failed at run time
    ├── ConfigError            exit 2: the configuration; one line per mistake, each with where it is
    ├── UsageError             exit 2: the command line
    └── MachineError           exit 1: this machine: no privilege, no such interface, a foreign program
        └── NotInstalled       exit 2: part of npd6-xdp, or of what it needs, isn't there: no restart mends that

A bad packet is never here: it is a value and a counter (core/verdict.py).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class Npd6Error(Exception):
    """Base of all errors this program raises on purpose; its text is one line for the user."""

    exit_status = 1


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a configuration file.

    `where` it stands by name ("interface[0].rule[2].prefix", or "" for the whole file or what has no name); `message`
    says what is wrong and what to write instead, in one line. `line` and `column` count from 1, the column in
    characters; 0 is none.
    """

    where: str
    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def told(self, source: str) -> str:
        """The line for the user: FILE:LINE:COLUMN: PLACE: what is wrong, without the parts that it hasn't."""
        return f"{':'.join((source, *(str(number) for number in (self.line, self.column) if number)))}: {self}"

    def fields(self, source: str) -> dict[str, object]:
        """The same as the fields of JSON; None is what it hasn't."""
        return {
            "file": source,
            "line": self.line or None,
            "column": self.column or None,
            "place": self.where or None,
            "message": self.message,
        }


MOST_MISTAKES = 20
"""Mistakes of one file that are shown. Whoever has made more finds the rest after mending these."""


def in_few_lines(text: str) -> str:
    """What is wrong, without the lines after the first MOST_MISTAKES, but with how many those are: thousands of
    interfaces may each be the reason for one.
    """
    lines = text.splitlines()
    if (more := len(lines) - MOST_MISTAKES) <= 0:
        return text
    return "\n".join([*lines[:MOST_MISTAKES], f"and {more:,} more line{'' if more == 1 else 's'}"])


class ConfigError(Npd6Error):
    """The configuration can't be used. `mistakes` holds what was found, in the file's order.

    They are the first MOST_MISTAKES of `count` (all that are given, if it isn't said), and one that says how many
    more there are.
    """

    exit_status = 2

    def __init__(self, source: str, mistakes: Sequence[Mistake], count: int = 0) -> None:
        self.source = source
        self._given = (source, tuple(mistakes[:MOST_MISTAKES]), max(count, len(mistakes)))
        more = self._given[2] - MOST_MISTAKES
        rest = (Mistake("", f"and {more:,} more mistake{'' if more == 1 else 's'}; mend these first"),)
        self.mistakes = (*mistakes[:MOST_MISTAKES], *(rest if more > 0 else ()))
        super().__init__("\n".join(mistake.told(source) for mistake in self.mistakes))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, tuple[Mistake, ...], int]]:
        """For pickle: it may come from another process."""
        return ConfigError, self._given

    def fields(self) -> list[dict[str, object]]:
        """Each mistake as JSON has it."""
        return [mistake.fields(self.source) for mistake in self.mistakes]


class UsageError(Npd6Error):
    """The command line asks for something that can't be."""

    exit_status = 2


class MachineError(Npd6Error):
    """The machine refuses: a missing interface, a missing privilege, a foreign XDP program, a busy port."""


class NotInstalled(MachineError):
    """What npd6-xdp needs isn't there, or is something else by that name: as for a configuration that can't be used, it
    isn't to be tried again.
    """

    exit_status = 2


class BrokenSource(MachineError):
    """A source of notifications gives nothing but errors. Reading again doesn't help, but it may be opened anew."""


def refusal(error: Exception) -> dict[str, object]:
    """What a client of the control socket hears of an error: its line, and whether that is for what he has asked."""
    if not isinstance(error, Npd6Error):
        return {"error": f"internal error: {error}; see the log"}
    return {"error": str(error), **({"usage": True} if isinstance(error, UsageError) else {})}


_USED_UP = {
    errno.EMFILE: "raise LimitNOFILE= (ulimit -n)",
    errno.ENFILE: "raise the sysctl fs.file-max",
    errno.ENOMEM: "this machine is short of memory",
    errno.ENOBUFS: "this machine is short of memory",
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
}


def is_used_up(code: int) -> bool:
    """Whether an errno says that a resource is used up: trying again now would fail as well."""
    return code in _USED_UP


def is_want_of_descriptors(code: int) -> bool:
    """Whether an errno says that no file can be opened any more, by this process or by any."""
    return code in (errno.EMFILE, errno.ENFILE)


def remedy(error: OSError) -> str:
    """The kernel's words, and what to do where that is known."""
    said = error.strerror or str(error)
    return f"{said}: {_USED_UP[error.errno]}" if error.errno in _USED_UP else said


def want_of_threads() -> str:
    """What to do where no thread can be started."""
    return "can't start a thread: raise TasksMax= (the cgroup's pids.max), or LimitNPROC= (ulimit -u)"


@contextmanager
def as_machine_error(what: str) -> Iterator[None]:
    """Make what the system refuses within the block a MachineError that says at what."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else ""
        at = f"{where}: " if where else ""
        raise MachineError(f"{what}: {at}{remedy(error)}{_not_mounted(error.errno, where)}") from error


def _not_mounted(code: int | None, path: str) -> str:
    """What to do where a file below /proc or /sys is missing, as in a chroot or a container without these."""
    root = next((root for root in ("/proc", "/sys") if path.startswith(f"{root}/")), "")
    return f": mount {root}, which it can't do without" if root and code == errno.ENOENT else ""
