# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells systemd's journal the priority of each line on stderr, by the prefixes of sd-daemon(3): `journalctl -p
warning`.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))  # of syslog(3)


def reads_stderr(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the journal is what stderr goes to: JOURNAL_STREAM of systemd.exec(5), which children inherit, too."""
    try:
        stderr = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # there is none, or it is no file
        return False
    return environment.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


def prefixed(text: str, level: int) -> str:
    """Each line of a text with the priority of its level, one of logging's."""
    priority = next(priority for least, priority in _PRIORITIES if level >= least)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class JournalFormatter(logging.Formatter):
    """What another formatter makes of a record, for the journal."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, each with its priority."""
        return prefixed(self._formatter.format(record), record.levelno)
