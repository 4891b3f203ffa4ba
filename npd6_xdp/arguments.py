# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command takes: how a verb is declared, the options that several have, and the types of their values."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from npd6_xdp.core.config import Config
from npd6_xdp.core.macs import mac_of

CONFIG = Path("/etc/npd6-xdp/npd6-xdp.toml")
"""The configuration file, where --config doesn't name another."""


def ipv6_address(text: str) -> IPv6Address:
    """The type of an address."""
    try:
        return IPv6Address(text)
    except AddressValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv6 address") from error


def mac(text: str) -> bytes:
    """The type of a MAC address: 6 bytes."""
    try:
        return mac_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a MAC address such as 02:00:00:00:00:02") from error


def runbook_address(text: str) -> str:
    """The type of a page's address to which anchors are added; it stands in YAML, and in a template of Prometheus's."""
    if not re.fullmatch(r"https?://[^\s\"#{}\\]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the address of a page, such as https://wiki.example/alerts")
    return text


def count_to(most: int) -> Callable[[str], int]:
    """The type of a number of times, or of things."""

    def count(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
        return int(text)

    return count


count = count_to(100_000)
"""The type of a number of times."""


class Parser(argparse.ArgumentParser):
    """One whose complaint is a line, as every other error is."""

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Let nothing through that is of no option: the command's own help has those that there are."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where it says what would be right; exit status 2."""
        command = self.prog.removeprefix("npd6-xdp").strip()
        where = f"{command}: " if command else ""
        self.exit(2, f"npd6-xdp: {where}{' '.join(message.splitlines())}; {self.prog} --help says what it takes\n")


Takes = Callable[[argparse._ActionsContainer], object]
"""An option or an operand, to be given to a verb's parser."""


def option(*names: str, **how: Any) -> Takes:
    """An option, or an operand (a name without dashes), as ArgumentParser.add_argument() takes it."""
    return lambda parser: parser.add_argument(*names, **how)


def one_of(*options: Takes) -> Takes:
    """Options of which one at most may be given."""

    def take(parser: argparse._ActionsContainer) -> None:
        group = parser.add_mutually_exclusive_group()
        for each in options:
            each(group)

    return take


CONFIG_FILE = option(
    "--config",
    default=CONFIG,
    type=Path,
    metavar="FILE",
    help="the TOML configuration file (default: %(default)s)",
)
CONTROL_SOCKET = option(
    "--control",
    type=Path,
    default=Path(Config(()).control),
    metavar="PATH",
    help="the daemon's control socket, as daemon.control says it (default: %(default)s)",
)

Function = Callable[[argparse.Namespace], int | None]


class Verb(NamedTuple):
    """A command: `does` is its line in the list of all, `examples` what may stand behind its name.

    `function` returns the exit status; None is 0.
    """

    function: Function
    does: str
    description: str
    examples: tuple[str, ...]
    takes: tuple[Takes, ...]

    @property
    def name(self) -> str:
        """That of its function."""
        return self.function.__name__

    def add_to(self, commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
        """Add it to a parser as one of its commands; the parsed `verb` is its function."""
        title = "example" if len(self.examples) == 1 else "examples"
        parser = commands.add_parser(
            self.name,
            help=self.does,
            description=textwrap.fill(self.description, 78),
            epilog="\n  ".join((f"{title}:", *(f"npd6-xdp {self.name} {rest}".rstrip() for rest in self.examples))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(verb=self.function)
        for takes in self.takes:
            takes(parser)


def verb(does: str, description: str, *examples: str, takes: tuple[Takes, ...] = ()) -> Callable[[Function], Verb]:
    """Make a command of a function: what it does in a line and in full, how it may be called, and what it takes."""
    return lambda function: Verb(function, does, description, examples, takes)
