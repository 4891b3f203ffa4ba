# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check finds: its level, in a sentence, and the commands that mend it; as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple


class Level(StrEnum):
    """How grave it is. FAIL: with this, what the configuration says can't work; WARN: it may not."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """What a check says. `message` begins with the interface or the rule that it is about, if it is about one.

    `mend` are commands for a shell, to be run as root one after the other; none where no command mends it: then the
    message says what does.
    """

    check: str
    level: Level
    message: str
    mend: tuple[str, ...] = ()


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, message)


def note(check: str, message: str, *mend: str) -> Finding:
    """It doesn't keep anything from working, or it couldn't be looked at."""
    return Finding(check, Level.NOTE, message, mend)


def warn(check: str, message: str, *mend: str) -> Finding:
    """It may keep something from working."""
    return Finding(check, Level.WARN, message, mend)


def fail(check: str, message: str, *mend: str) -> Finding:
    """It keeps something from working."""
    return Finding(check, Level.FAIL, message, mend)


def is_failed(findings: Iterable[Finding]) -> bool:
    """Whether any of them fails."""
    return any(finding.level is Level.FAIL for finding in findings)


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """All of them as plain values."""
    return [{**finding._asdict(), "level": str(finding.level), "mend": list(finding.mend)} for finding in findings]


_COLOURS: Mapping[Level, str] = {Level.OK: "32", Level.NOTE: "36", Level.WARN: "33", Level.FAIL: "31"}
_LEVEL_WIDTH = max(map(len, Level))


def findings_text(findings: Sequence[Finding], *, colours: bool = False) -> str:
    """A line each, aligned; below what isn't ok, the commands that mend it; at the end a line that sums up."""
    width = max((len(finding.check) for finding in findings), default=0)
    indent = " " * (_LEVEL_WIDTH + width + 4)
    lines = []
    for finding in findings:
        level = f"{finding.level:<{_LEVEL_WIDTH}}"
        level = f"\x1b[{_COLOURS[finding.level]}m{level}\x1b[0m" if colours else level
        lines.append(f"{level}  {finding.check:<{width}}  {finding.message}")
        lines += [f"{indent}$ {command}" for command in finding.mend]
    return "\n".join([*lines, "", _sum(findings)])


def _sum(findings: Sequence[Finding]) -> str:
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    said = [f"{counts[level]} {level}" for level in (Level.FAIL, Level.WARN, Level.NOTE) if counts[level]]
    what = ", ".join(said) if said else "nothing is in the way"
    return f"{len(findings)} checks: {what}"
