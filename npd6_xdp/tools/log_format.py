# SPDX-License-Identifier: GPL-2.0-or-later
"""How a line of the log looks: text or JSON, and with its priority where the journal reads it."""

from __future__ import annotations

import json
import logging
import time

from npd6_xdp.core.logged import fields_of
from npd6_xdp.tools import journal
from npd6_xdp.tools.log import LogThread
from npd6_xdp.tools.syslog import Syslog

_LOG = logging.getLogger("npd6-xdp")


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    """A line of words."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"npd6-xdp: {record.levelname.lower()}: {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up(level: str, style: str, handler: logging.Handler, *, to_syslog: bool = False) -> None:
    """Send the log to a handler, from a level on, in the style of daemon.log_format; or to syslog, by a LogThread."""
    formatter = _JsonFormatter() if style == "json" else _TextFormatter()
    is_journal = journal.reads_stderr()
    handler.setFormatter(journal.JournalFormatter(formatter) if is_journal else formatter)
    if isinstance(handler, LogThread):
        handler.journal = journal.Journal(formatter) if is_journal else Syslog(formatter) if to_syslog else None
    _LOG.handlers[:] = [handler]
    _LOG.setLevel(level.upper())
    # Libraries speak through the root logger, and only when something is wrong.
    _LOG.propagate = False
    others = logging.getLogger()
    others.handlers[:] = [handler]
    others.setLevel(logging.WARNING)
