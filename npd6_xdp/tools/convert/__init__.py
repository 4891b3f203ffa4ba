# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp convert`: npd6.conf or ndppd.conf in, our TOML out; what has no equivalent is reported, never dropped.

Both grammars are read as npd6 1.1.0 (config.c, exparser.c) and ndppd 0.2.5 (conf.cc, proxy.cc) read them; where those
pass over what they can't use, it is a remark here, and where they would refuse or misread the file, a mistake.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from npd6_xdp.tools.convert import ndppd, npd6
from npd6_xdp.tools.convert.common import SPACE, Notes, plain, without_space
from npd6_xdp.tools.convert.machine import NOTHING_KNOWN, Facts, facts
from npd6_xdp.tools.convert.toml import document
from npd6_xdp.tools.files import read_text

_READERS = {"npd6.conf": npd6.read, "ndppd.conf": ndppd.read}


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted file: `toml` is the text of ours, `remarks` what it can't say, as "FILE:LINE: what and why".

    Each remark stands in `toml` too, as a comment where it belongs. `kind` is what was read: npd6.conf or ndppd.conf.
    `losses` are those of the remarks that say what of a file to run by is left out; `idle`: nothing else is left of it.
    """

    toml: str
    remarks: tuple[str, ...]
    kind: str
    losses: tuple[str, ...] = ()
    idle: bool = False


def convert(text: str, source: str, machine: Facts = NOTHING_KNOWN) -> Converted:
    """Convert the text of an npd6.conf or ndppd.conf, told apart by content; `source` is the file's name.

    `machine` says what is known of the interfaces that the file names; without it, their names tell what they can.
    Raises ConfigError with every mistake, each at its line, for a file that is neither, or malformed.
    """
    text = text.removeprefix("\ufeff")
    notes = Notes(source)
    kind = _kind(text, notes)
    interfaces = _READERS[kind](text, notes, machine) if kind else []
    if not notes.mistakes and not any(interface.converted for interface in interfaces):
        notes.wrong(0, "no rule is left that npd6-xdp could have")
        notes.mistakes += notes.said
    if notes.mistakes:
        raise notes.error()
    return Converted(document(kind, notes, interfaces), notes.remarks(), kind)


def convert_ndppd(text: str, source: str, machine: Facts = NOTHING_KNOWN) -> Converted:
    """Convert the text of an ndppd.conf that the daemon is to run by: as far as ndppd goes on, this does.

    A file without any rule is one, too: ndppd runs by it, and answers nothing. Raises ConfigError with every mistake,
    each at its line, for a file that ndppd refuses, but for interfaces that aren't there yet.
    """
    notes = Notes(source, goes_on=True)
    interfaces = ndppd.read(text.removeprefix("\ufeff"), notes, machine)
    if notes.mistakes:
        raise notes.error()
    idle = not any(interface.converted for interface in interfaces)
    if idle:
        notes.lost.append((1, "no rule: nothing is answered until the file has one, and is read again"))
    toml = document("ndppd.conf", notes, interfaces)
    return Converted(toml, notes.remarks(), "ndppd.conf", notes.losses(), idle)


def run(path: Path) -> int:
    """Convert a file: TOML on stdout, the remarks on stderr; returns 0. Raises ConfigError if it can't be."""
    converted = convert(read_text(path), str(path), facts())
    for line in (f"{plain(str(path))}: read as {converted.kind}", *converted.remarks):
        print(f"npd6-xdp: {line}", file=sys.stderr)
    print(converted.toml, end="", flush=True)
    return 0


def _kind(text: str, notes: Notes) -> str:
    """Which of the two a file is; the first line that only one of them would have decides."""
    inline = SPACE.replace("\n", "")  # or each of many empty lines would be looked behind to the last
    bare = re.sub(rf"(?m)^[{inline}]*(#|//).*$", "", text)
    commented, end, behind = bare.rpartition("*/")  # what begins behind the last end has none to look for
    bare = re.sub(r"(?s)/\*.*?\*/", "", commented + end) + behind
    for line in bare.split("\n"):
        if line.startswith("[[interface"):
            notes.wrong(0, "this is npd6-xdp's own format already; see `npd6-xdp check --config`")
            return ""
        if re.match(rf"[{SPACE}]*(proxy|route-ttl|address-ttl)([{SPACE}={{]|$)", line):
            return "ndppd.conf"
        key, equals, _ = without_space(line).partition("=")
        if equals and npd6.meant(key):
            return "npd6.conf"
    notes.wrong(0, "neither an npd6.conf (prefix = ..., interface = ...) nor an ndppd.conf (proxy IFACE { ... })")
    return ""
