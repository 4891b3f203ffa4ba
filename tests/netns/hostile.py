# SPDX-License-Identifier: GPL-2.0-or-later
"""What may stand in the place of a configuration file, and no configuration can be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.tools.files import MOST
from tests.netns.wire import configuration

RULE = "2001:db8:1::/64 static"


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def loop_of_links(path: Path) -> None:
    path.symlink_to(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def too_long(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MOST + 1)


def text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


GOOD = f'[daemon]\ncontrol = "{{control}}"\n{configuration(RULE)}'
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a named pipe": (named_pipe, "can't read it: it is a named pipe, not a regular file"),
    "a device without an end": (
        lambda path: path.symlink_to("/dev/zero"),
        "can't read it: it is a device, not a regular file",
    ),
    "a terminal": (lambda path: path.symlink_to("/dev/ptmx"), "can't read it: it is a device, not a regular file"),
    "a directory": (Path.mkdir, "can't read it: it is a directory, not a regular file"),
    "a loop of links": (loop_of_links, "can't read it: Too many levels of symbolic links"),
    "a socket": (unix_socket, "can't read it: it is a socket, not a regular file"),
    "nothing": (lambda path: None, "can't read it: No such file or directory"),
    "too long": (too_long, f"it is too long: {MOST + 1:,} bytes, of {MOST:,} at most"),
    "UTF-16": (text(GOOD.encode("utf-16")), "it is UTF-16; save it as UTF-8"),
    "UTF-16 without a mark": (text(GOOD.encode("utf-16-le")), "it looks like UTF-16"),
    "Latin-1": (text(b"# \xfcber\n"), "not UTF-8 text: byte 2 can't be decoded"),
    "a program": (lambda path: path.write_bytes(Path("/bin/true").read_bytes()), "not text: a zero byte"),
    "empty": (text(""), "no interface; write [[interface]]"),
    "arrays within arrays": (text("a = " + "[" * 100_000), "arrays nest too deeply"),
    "one key of many parts": (text(".".join("a" * 20_000) + " = 1"), "a key of more than 16 parts"),
}


MANY = (
    ("".join(f"colour{n} = {n}\n" for n in range(100_000)), "unknown key", 100_001),  # and no rule
    (
        "".join(f'[[interface.rule]]\nprefix = "2001:db8::/{n}"\nmethod = "statik"\n' for n in range(129, 15_129)),
        "the prefix length must be",
        30_000,
    ),
)
"""Files with many mistakes: their lines, what the first is, and how many they are."""

SLY = {
    "a path of many lines": '[metrics]\nweb_config = "/' + r"\n" * 100_000 + '"\n',
    "a long path": f'[metrics]\nweb_config = "/{"a" * 1_000_000}"\n',
    "a long range": '[[interface]]\nname = "wan0"\n[[interface.rule]]\nmethod = "static"\n'
    f'prefix = "2001:db8::1{" " * 30_000_000}-2001:db8::2"\n',
    "addresses to listen at": "[metrics]\nlisten = ["
    + ", ".join(f'"127.{n >> 16}.{n >> 8 & 255}.{n & 255}:9846"' for n in range(1, 100_001))
    + "]\n",
}
"""Files that are TOML, and of whose values the daemon would have much to take in, to log or to do."""

HUGE: dict[str, tuple[Callable[[int], bytes], bool]] = {
    "comments": (lambda size: b"# a comment\n" * (size // 12), False),
    "one line": (lambda size: b"#" * size, False),
    "blank lines": (lambda size: b"\n" * size, False),
    "empty tables": (lambda size: b"[[interface]]\n" * (size // 14), False),
    "zero bytes": (bytes, True),
    "random bytes": (os.urandom, True),
    "brackets": (lambda size: (b"a = " + b"[" * size)[:size], False),
    "one number": (lambda size: (b"a = " + b"1" * size)[:size], False),
    "one key": (lambda size: b"a" * size, False),
    "dots": (lambda size: b"a." * (size // 2), False),
    "one string": (lambda size: b'a = "' + b"a" * (size - 6) + b'"', False),
    "a string without an end": (lambda size: (b'a = """' + b"a\n" * size)[:size], False),
}
"""Files of so many bytes; whether even those of the most that are read are refused within a second."""


def put(running: RunningDaemon, what: Callable[[Path], object]) -> None:
    """Let something else be where the configuration was."""
    path = running.config_file
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    what(path)
