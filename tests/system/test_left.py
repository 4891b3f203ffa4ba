# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process leaves to its successor in a file: read only where nobody else can have written it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from npd6_xdp.system.left import Left


def left(directory: Path) -> Left:
    return Left("remembered", 64, {"RUNTIME_DIRECTORY": str(directory)})


def test_what_was_written_is_read_until_it_is_removed(tmp_path: Path) -> None:
    assert left(tmp_path).read() is None
    for data in (b"one", b"another"):
        left(tmp_path).write(data)
        assert left(tmp_path).read() == data
    assert [each.stat().st_mode & 0o777 for each in tmp_path.iterdir()] == [0o600]
    left(tmp_path).remove()
    left(tmp_path).remove()
    assert left(tmp_path).read() is None
    assert [*tmp_path.iterdir()] == []


def test_without_a_directory_of_the_service_nothing_is_left() -> None:
    nowhere = Left("remembered", 64, {})
    nowhere.write(b"one")
    assert nowhere.read() is None
    nowhere.remove()


def _link(file: Path) -> None:
    file.rename(file.with_name("other"))
    file.symlink_to("other")


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


WRONG: dict[str, Callable[[Path], object]] = {
    "a link": _link,
    "another name": lambda file: os.link(file, file.with_name("other")),
    "a pipe": _pipe,
    "a directory": _directory,
    "for others to write": lambda file: file.chmod(0o622),
    "too large": lambda file: file.write_bytes(bytes(65)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_somebody_else_may_have_written_is_ignored(tmp_path: Path, wrong: str) -> None:
    left(tmp_path).write(b"one")
    WRONG[wrong](tmp_path / "remembered")
    assert left(tmp_path).read() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_what_belongs_to_another_user_is_ignored_even_by_root(tmp_path: Path) -> None:
    left(tmp_path).write(b"one")
    os.chown(tmp_path / "remembered", 65534, 65534)
    assert left(tmp_path).read() is None


def test_where_it_cant_be_written_that_is_said_and_nothing_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "npd6-xdp"):
        left(tmp_path / "gone").write(b"one")
    assert caplog.messages == [
        f"{tmp_path}/gone/remembered: can't leave this to our successor: No such file or directory"
    ]
