# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon in this process, from its first line in the log to its exit status."""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from npd6_xdp.core.config import Config
from npd6_xdp.core.errors import UsageError

if TYPE_CHECKING:
    from npd6_xdp.daemon.reading import Source
    from npd6_xdp.tools.log import LogThread

log = logging.getLogger("npd6-xdp")


def run(
    path: Path,
    option: str,
    source: Callable[[Path], Source],
    *,
    level: str = "",
    configured: Callable[[LogThread], None] = lambda _: None,
    at_work: Callable[[LogThread], None] = lambda _: None,
) -> int:
    """Answer until a signal ends it, by the file that `option` of the command line has named; returns the exit status.

    `source` makes of its path what it is read by. `level` is the log's, where the file doesn't decide it. `configured`
    is told of each configuration in use, when the log goes by it, and `at_work` once the daemon answers.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # until the daemon handles them, which it does once it has read its file
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, which is inherited, children can't be waited for
    from npd6_xdp.compiling import Compiling

    compiling = Compiling.worth_it(path)  # before all that takes a while to import, and before there is a thread
    from npd6_xdp.tools.complaint import complaint
    from npd6_xdp.tools.log import LogThread
    from npd6_xdp.tools.log_format import set_up

    lines = LogThread()
    set_up("warning", "text", lines)

    def take(config: Config) -> None:
        set_up(level or config.log_level, config.log_format, lines)
        configured(lines)
        for remark in config.remarks:
            if remark.lost:
                log.warning("%s", remark.text)
            else:
                log.info("%s", remark.text)

    try:
        from npd6_xdp import daemon

        file = _lasting(path, option)
        daemon.run(
            source(file),
            take,
            str(file.absolute()),
            lambda: lines.dropped,
            lambda: at_work(lines),
            compiling,
        )
    except Exception as error:  # through the log, as nobody may read stderr
        text, exit_status = complaint(error) or (traceback.format_exc().rstrip(), 1)
        lines.say(text)
        return exit_status
    finally:
        if compiling is not None:
            compiling.close()
        lines.finish()
    return 0


def _lasting(path: Path, option: str) -> Path:
    """The path of a file to be read now and later, with a working directory that is there. Raises UsageError."""
    try:
        Path.cwd()
    except OSError as error:
        if not path.is_absolute():
            raise UsageError(f"{option} {path}: the working directory is gone; name the file from / on") from error
        os.chdir("/")  # bcc changes the directory and comes back to it
    return path
