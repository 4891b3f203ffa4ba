# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's voice: acts, evidence and checks on a terminal or in a file, at most 98 columns wide."""

from __future__ import annotations

import io
import os
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from npd6_xdp.lab.topology import Stopped

WIDTH = 98
_NAME, _EXPECTED = 40, 24  # columns at the least

_BOLD, _DIM, _GREEN, _RED = "1", "2", "32", "1;31"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that had to hold: what was expected and what was seen."""

    act: str
    name: str
    expected: str
    seen: str
    held: bool


class Report:
    """Prints the story as it happens and remembers its checks; in colour on a terminal, but for NO_COLOR."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        if isinstance(self.out, io.TextIOWrapper):
            self.out.reconfigure(errors="replace")  # an odd locale may spoil a line, not the lab
        self.checks: list[Check] = []
        self._act = ""
        self._in_gap = False  # the last line printed was empty
        self._color = self.out.isatty() and not os.environ.get("NO_COLOR")

    @property
    def failures(self) -> int:
        """How many checks have failed so far."""
        return sum(not check.held for check in self.checks)

    def act(self, title: str) -> None:
        """Begin an act."""
        self._act = title
        self._gap()
        self._print(f"── {title} ".ljust(WIDTH, "─"), _BOLD)

    def say(self, text: str) -> None:
        """A paragraph of the story."""
        self._gap()
        self._print(textwrap.fill(text, WIDTH))
        self._gap()

    def show(self, text: str) -> None:
        """Evidence: output, a file, a picture; indented, its lines as they are."""
        for line in text.strip("\n").splitlines():
            self._print(f"    {line}".rstrip(), _DIM)

    def command(self, line: str, output: str) -> None:
        """A command and what it printed."""
        self._gap()
        self._print(f"  {line}", _BOLD)
        self.show("\n".join(line for line in output.splitlines() if line.strip()))

    def check(self, name: str, expected: object, seen: object) -> bool:
        """Record a check, and say at once if it failed. Returns whether it held."""
        return self._record(Check(self._act, name, str(expected), str(seen), str(expected) == str(seen)))

    def at_most(self, name: str, limit: float, seen: float) -> bool:
        """The same for a time in seconds that mustn't be longer than another."""
        return self._record(Check(self._act, name, f"at most {limit:.2f} s", f"{seen:.2f} s", seen <= limit))

    def _record(self, check: Check) -> bool:
        self.checks.append(check)
        if not check.held:
            self._print(f"  FAILED  {check.name}: expected {check.expected}, seen {check.seen}", _RED)
        return check.held

    def tell(self, story: Callable[[], None]) -> int:
        """Tell a story to its end, or until a signal ends it; the exit status: 0 if all of it held."""
        began = time.monotonic()
        try:
            story()
        except Stopped as stopped:
            print(f"npd6-xdp lab: stopped by {stopped.signum.name}; the namespaces are removed", file=sys.stderr)
            return 128 + stopped.signum
        return 0 if self.close(time.monotonic() - began) else 1

    def close(self, seconds: float) -> bool:
        """The closing summary, one line a check. Returns whether every one held, and there was one."""
        self.act("Summary")
        act = None
        width = max((_NAME, *(len(check.name) + 2 for check in self.checks)))
        for check in self.checks:
            if check.act != act:
                act = check.act
                self._gap()
                self._print(f"  {act:<{width + 8}}{'expected':<{_EXPECTED}}seen", _BOLD)
            mark = f"{'ok' if check.held else 'FAILED':<8}"
            line = f"  {mark}{check.name:<{width}}{check.expected:<{_EXPECTED}}{check.seen}"
            self._print(line, _GREEN if check.held else _RED)
        held = bool(self.checks) and not self.failures
        self._gap()
        verdict = (
            f"all {len(self.checks)} checks held" if held else f"{self.failures} of {len(self.checks)} checks FAILED"
        )
        self._print(f"  {verdict}, in {seconds:.0f} s", _BOLD if held else _RED)
        return held

    def _gap(self) -> None:
        if not self._in_gap:
            self._print("")
        self._in_gap = True

    def _print(self, line: str, style: str = "") -> None:
        self._in_gap = False
        print(f"\033[{style}m{line}\033[0m" if style and self._color else line, file=self.out, flush=True)
