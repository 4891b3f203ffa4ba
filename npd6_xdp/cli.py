# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: runs one of the verbs (npd6_xdp/verbs*.py), and says what ends it."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence

import npd6_xdp
from npd6_xdp import verbs, verbs_init, verbs_see
from npd6_xdp.arguments import Parser, Verb

DESCRIPTION = """\
An IPv6 Neighbor Discovery proxy: answers Neighbor Solicitations for the prefixes of its
configuration, in the network driver (XDP), so that hosts behind this router are reachable
from an upstream that believes them on its own link."""

EPILOG = "npd6-xdp COMMAND --help has a command's options, and an example."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed at run time, 2 usage or configuration."""
    from npd6_xdp.tools.complaint import complaint
    from npd6_xdp.tools.log_format import set_up

    open_standard_files()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal can't show are escaped
            stream.reconfigure(errors="backslashreplace")
    arguments = argument_parser().parse_args(argv)
    set_up("warning", "text", logging.StreamHandler(sys.stderr))
    try:
        return int(arguments.verb(arguments) or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _give_up_output()  # the reader of our output has closed the pipe
        return 1
    except Exception as error:
        found = complaint(error)
        if found is None:
            raise
        text, exit_status = found
        print(text, file=sys.stderr)
        if isinstance(error, OSError):
            _give_up_output()
        return exit_status


def open_standard_files() -> None:
    """Make sure that file descriptors 0, 1 and 2 are open: else another file might get such a number, and output be
    written to it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free


def _give_up_output() -> None:
    """Discard what is still buffered."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def argument_parser() -> argparse.ArgumentParser:
    """The commands and their options, of which the manual and the completions are made, too."""
    parser: argparse.ArgumentParser = Parser(
        prog="npd6-xdp",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"npd6-xdp {npd6_xdp.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (verbs, verbs_init, verbs_see):
        for verb in vars(module).values():
            if isinstance(verb, Verb):
                verb.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
