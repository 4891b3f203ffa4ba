# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp-ndppd`, or a link to it called ndppd: the daemon by ndppd's command line, and by its configuration file.

As ndppd has it, what isn't one of its options is passed over. Unlike ndppd, it goes to the background once it answers:
whoever has started it hears by the exit status that it doesn't.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import npd6_xdp
from npd6_xdp.core.logged import fields

if TYPE_CHECKING:
    from npd6_xdp.tools.log import LogThread

CONFIG = Path("/etc/ndppd.conf")
"""The file, where -c doesn't name another."""

DESCRIPTION = """\
npd6-xdp by ndppd's command line: reads an ndppd.conf, converts it, and answers by it. SIGHUP has it read the file
again. What of the file is different here, its log says."""

log = logging.getLogger("npd6-xdp")


def argument_parser() -> argparse.ArgumentParser:
    """Its options, of which its manual is made, too."""
    parser = argparse.ArgumentParser(
        prog="npd6-xdp-ndppd", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("-c", "--config", type=Path, metavar="FILE", default=CONFIG, help="the ndppd.conf (default: %(default)s)")
    add("-d", "--daemon", action="store_true", help="go to the background once it answers, and log to syslog")
    add("-p", "--pidfile", type=Path, metavar="FILE", help="write the process id there once it answers")
    add("-v", "--verbose", action="count", default=0, help="log more (debug)")
    add("--version", action="version", version=f"npd6-xdp-ndppd {npd6_xdp.__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit status: 0 ended, 1 failed at run time, 2 usage or configuration."""
    from npd6_xdp.cli import open_standard_files

    open_standard_files()
    given, rest = argument_parser().parse_known_args(argv)
    if rest:
        said = f"{' '.join(rest)}: passed over, as ndppd does; --help says what there is"
        print(f"npd6-xdp-ndppd: {said}", file=sys.stderr)
    arguments = _Arguments(
        given.config.absolute() if given.daemon else given.config,
        given.pidfile and given.pidfile.absolute(),
        "debug" if given.verbose else "info",
    )
    try:
        return _in_background(arguments) if given.daemon else _serve(arguments, -1)
    except KeyboardInterrupt:
        return 130


class _Arguments(NamedTuple):
    """What the command line says."""

    config: Path
    pidfile: Path | None
    level: str


def _in_background(arguments: _Arguments) -> int:
    """Serve in a process of its own; returns 0 once it answers, or with what it has ended before."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        os.setsid()
        os.chdir("/")
        return _serve(arguments, writing)
    os.close(writing)
    try:
        if os.read(reading, 1):
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or 1
    except KeyboardInterrupt:
        os.kill(child, 15)
        raise


def _serve(arguments: _Arguments, starter: int) -> int:
    """The daemon, in this process. `starter` is the pipe to who waits for it to answer; -1: nobody does."""
    from npd6_xdp import foreground
    from npd6_xdp.tools import journal
    from npd6_xdp.tools.log_format import set_up
    from npd6_xdp.verbs import ndppd_file

    in_background = False

    def at_work(lines: LogThread) -> None:
        nonlocal in_background
        _write(arguments.pidfile)
        if starter < 0:
            return
        in_background = True
        if not journal.reads_stderr():
            configured(lines)
            lines.flush()  # to whoever has started us
            _give_up_terminal()
        with suppress(OSError):  # who waited is gone
            os.write(starter, b"1")
        os.close(starter)

    def configured(lines: LogThread) -> None:
        if in_background:
            set_up(arguments.level, "text", lines, to_syslog=True)

    try:
        return foreground.run(
            arguments.config, "-c", ndppd_file, level=arguments.level, configured=configured, at_work=at_work
        )
    finally:
        _take_away(arguments.pidfile)


def _write(pidfile: Path | None) -> None:
    """Leave this process's id. ndppd itself goes on where it can't."""
    if pidfile is None:
        return
    try:
        pidfile.write_text(f"{os.getpid()}\n")
    except OSError as error:
        log.warning("-p %s: can't write it: %s", pidfile, error.strerror, extra=fields(error=str(error.strerror)))


def _take_away(pidfile: Path | None) -> None:
    """Take the file away, unless it has become another's."""
    with suppress(OSError, ValueError):
        if pidfile is not None and int(pidfile.read_text()) == os.getpid():
            pidfile.unlink()


def _give_up_terminal() -> None:
    """Let go of whatever the standard files are."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
