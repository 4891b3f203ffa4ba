# SPDX-License-Identifier: GPL-2.0-or-later
"""How an interface's name is shown, and written in the configuration: as printable text.

Linux takes any bytes for a name but NUL, white space, ":" and "/": escape sequences, HTML, what isn't UTF-8. In this
program a name is what shown() makes of it, from the moment that it is read from netlink. So it needs no escaping where
it leaves the program (log, JSON, label, page). Code that gives the kernel a name uses raw().
"""

from __future__ import annotations

import re
import shlex

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._=-"


def shown(name: bytes) -> str:
    r"""Printable UTF-8 as it is; a backslash, and each byte of anything else, as \xNN. No two names are shown alike."""
    return "".join(
        character
        if character.isprintable() and character != "\\"
        else "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))
        for character in name.decode(errors="surrogateescape")
    )


def raw(name: str) -> bytes:
    """The bytes of a name that is shown so; of what shown() doesn't make, what it looks like."""
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), name.encode(errors="surrogateescape"))


def word(text: str) -> str:
    """A word of a shell's command that has a name in it, as it is shown. Whoever may make an interface may choose its
    name, and commands that we print are run as root.
    """
    its = raw(text)
    try:
        found = its.decode()
    except UnicodeDecodeError:
        found = "\0"
    if found.isprintable():
        return shlex.quote(found)
    octal = "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in its)  # as any printf(1) takes it
    return f"\"$(printf '{octal}')\""


def canonical(name: str) -> str:
    r"""A name from a file or the command line, as shown() has it: both "a\b" and "a\x5cb" are the name a\b."""
    return shown(raw(name))
