# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a file that may be anything: what is no whole regular file of UTF-8 is refused in one line, at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from npd6_xdp.core.errors import ConfigError
from npd6_xdp.tools.files import MOST, read_text


def refused(path: Path, most: int = MOST) -> str:
    with pytest.raises(ConfigError) as caught:
        read_text(path, most)
    (mistake,) = caught.value.mistakes
    said = str(caught.value)
    assert said == mistake.told(str(path))
    return said.removeprefix(f"{path}:").removeprefix(" ")


def test_text_is_read_as_it_is_without_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"\xef\xbb\xbfa = 1\r\n# \xc3\xbc\n")
    assert read_text(file) == "a = 1\r\n# ü\n"


def test_a_file_of_the_kernels_that_says_it_is_empty_is_read() -> None:
    assert read_text(Path("/proc/self/comm")).endswith("\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a = 1\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        (b"\xfe\xff" + "a = 1\n".encode("utf-16-be"), "it is UTF-16; save it as UTF-8"),
        ("a = 1\n".encode("utf-32"), "it is UTF-32; save it as UTF-8"),
        ("a = 1\n".encode("utf-16-be"), "it looks like UTF-16 without a byte order mark; save it as UTF-8"),
        (b"\xef\xbb\xbf\xff", "1:1: not UTF-8 text: byte 3 can't be decoded; save it as UTF-8"),
        (b"a\n\nb\xe9", "3:2: not UTF-8 text: byte 4 can't be decoded; save it as UTF-8"),
        (b"\xc3\xbc\t\xe9", "1:3: not UTF-8 text: byte 3 can't be decoded; save it as UTF-8"),
        (b"\n\n\x00", "3:1: not text: a zero byte; is it the right file?"),
    ],
)
def test_what_is_no_utf_8_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "a"
    file.write_bytes(content)
    assert refused(file) == words


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(bytes(b"#" * 1000))
    assert len(read_text(file, 1000)) == 1000
    assert refused(file, 999).startswith("it is too long: 1,000 bytes, of 999 at most")


def test_a_million_rules_fit_as_the_documentation_says() -> None:
    """A rule with all that a long file's usually have, and the longest prefix that a /64 is written as."""
    usual, longest = (
        f'[[interface.rule]]\nprefix = "{prefix}"\nmethod = "neighbour"\nvia = ["{via}"]\n\n'
        for prefix, via in (("2001:db8:1:ffff::/64", "lan0"), ("2001:db8:ffff:ffff::/64", "lan0.1000"))
    )
    said = f"{MOST:,} bytes: a million rules with `via` take {len(usual)} million"
    assert said in (Path(__file__).resolve().parents[2] / "docs/configuration.md").read_text()
    assert 1_000_000 * len(longest) <= MOST


def test_one_that_is_written_to_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    read = os.read

    def meanwhile(change: Callable[[], object]) -> None:
        file.write_bytes(b"#" * 1000)
        once = iter([change])

        def reading(descriptor: int, size: int) -> bytes:
            next(once, lambda: None)()
            return read(descriptor, size)

        monkeypatch.setattr("os.read", reading)

    for change in (
        lambda: os.truncate(file, 500),
        lambda: os.truncate(file, 1500),
        lambda: os.utime(file, ns=(1, 1)),  # the same length, written anew
    ):
        meanwhile(change)
        assert refused(file) == "it was written to while it was read; once that is done, try again"
    meanwhile(lambda: os.truncate(file, 5000))
    assert refused(file, 2000) == "it is too long: more than 2,000 bytes"
    meanwhile(file.unlink)  # as an editor does that writes another file
    assert read_text(file) == "#" * 1000
