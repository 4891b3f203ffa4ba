# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept for the next start is read back whole, or not at all; no other user can change it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npd6_xdp.system.bpf import shelf

NAME, OTHER = "one", "another"
DATA = bytes(range(256)) * 16
USER = 4711
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept: a directory that isn't there yet."""
    place = tmp_path / "kept"
    monkeypatch.setenv("CACHE_DIRECTORY", str(place))
    return place


def had(name: str = NAME) -> bytes | None:
    return shelf.read(name, bytes)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.fixture
def file(place: Path) -> Path:
    shelf.write(NAME, DATA)
    return place / f"{NAME}.kept"


def test_what_is_kept_is_had_back_and_nobody_else_may_see_it(place: Path, file: Path) -> None:
    assert had() == DATA
    assert (place.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert names(place) == [file.name]


def test_it_is_the_first_directory_that_systemd_names_or_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/a:/var/cache/b")
    assert shelf.directory() == Path("/var/cache/a")
    for nothing in ("", None):
        if nothing is None:
            monkeypatch.delenv("CACHE_DIRECTORY")
        else:
            monkeypatch.setenv("CACHE_DIRECTORY", nothing)
        assert shelf.directory() == Path("/var/cache/npd6-xdp")


@pytest.mark.parametrize("there", [False, True])
def test_what_is_not_kept_is_nothing(place: Path, there: bool) -> None:
    if there:
        place.mkdir(0o700)
    assert had() is None
    shelf.remove(NAME)


def test_it_is_kept_nowhere_where_there_is_no_directory_for_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for nowhere in (place / "not" / "there", Path(os.devnull)):
        monkeypatch.setenv("CACHE_DIRECTORY", str(nowhere))
        shelf.write(NAME, DATA)
        assert had() is None
    assert not place.exists()


def test_what_is_kept_anew_takes_the_place_of_what_was(place: Path, file: Path) -> None:
    shelf.write(NAME, b"new")
    assert had() == b"new"
    shelf.remove(NAME)
    assert had() is None
    assert names(place) == []


@given(at=st.integers(0, len(DATA) + 31), bit=st.integers(0, 7))
def test_a_bit_that_fell_over_anywhere_is_found_and_the_file_removed(at: int, bit: int) -> None:
    shelf.write(NAME, DATA)
    file = shelf.directory() / f"{NAME}.kept"
    whole = bytearray(file.read_bytes())
    whole[at] ^= 1 << bit
    file.write_bytes(whole)
    assert had() is None
    assert not file.exists()


@given(length=st.integers(0, len(DATA) + 31))
def test_a_file_that_was_cut_off_is_found_and_removed(length: int) -> None:
    shelf.write(NAME, DATA)
    file = shelf.directory() / f"{NAME}.kept"
    os.truncate(file, length)
    assert had() is None
    assert not file.exists()


@given(rest=st.binary(min_size=1, max_size=64))
def test_a_file_that_something_was_added_to_is_found(rest: bytes) -> None:
    shelf.write(NAME, DATA)
    with (shelf.directory() / f"{NAME}.kept").open("ab") as file:
        file.write(rest)
    assert had() is None


def test_what_was_kept_under_another_name_is_not_believed(place: Path, file: Path) -> None:
    file.rename(place / f"{OTHER}.kept")
    assert had(OTHER) is None


def test_what_nothing_can_be_made_of_is_removed(file: Path) -> None:
    def unpack(data: bytes) -> bytes:
        raise ValueError("of another version")

    assert shelf.read(NAME, unpack) is None
    assert not file.exists()


def test_a_file_that_is_too_large_is_not_read(file: Path) -> None:
    os.truncate(file, shelf.MOST_BYTES + 1)
    assert had() is None
    assert not file.exists()


# --- others' --------------------------------------------------------------------------------------------


def as_symlink(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def as_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def as_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "something").touch()


IN_ITS_PLACE: dict[str, Callable[[Path], None]] = {
    "a symbolic link to the very same": as_symlink,
    "a FIFO that nobody writes to": as_fifo,
    "a directory": as_directory,
    "a file that the group may write to": lambda file: file.chmod(0o620),
    "a file that all may write to": lambda file: file.chmod(0o602),
}


@pytest.mark.parametrize("kind", IN_ITS_PLACE)
def test_what_is_there_in_its_place_is_not_read_nor_written_to(place: Path, file: Path, kind: str) -> None:
    IN_ITS_PLACE[kind](file)
    assert had() is None
    beside = {path: path.read_bytes() for path in place.rglob("*") if path.name in ("elsewhere", "something")}
    shelf.write(NAME, b"new")
    assert had() == (None if kind == "a directory" else b"new")
    assert {path: path.read_bytes() for path in beside} == beside
    assert not [name for name in names(place) if name.endswith(".new")]


@needs_root
def test_a_file_of_another_user_is_not_read_by_root(file: Path) -> None:
    os.chown(file, USER, USER)
    assert had() is None
    shelf.write(NAME, b"new")
    assert had() == b"new"
    assert file.stat().st_uid == 0


@needs_root
def test_a_directory_of_another_user_is_not_looked_into_by_root_nor_written_to(place: Path, file: Path) -> None:
    os.chown(place, USER, USER)
    assert had() is None
    shelf.write(OTHER, DATA)
    shelf.remove(NAME)
    assert names(place) == [file.name]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o1777])
def test_a_directory_that_others_may_write_to_is_not_looked_into(place: Path, file: Path, mode: int) -> None:
    place.chmod(mode)
    assert had() is None
    shelf.write(OTHER, DATA)
    assert names(place) == [file.name]


def test_a_symbolic_link_in_the_directorys_place_is_not_followed(
    place: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = place.with_name("link")
    link.symlink_to(place)
    monkeypatch.setenv("CACHE_DIRECTORY", str(link))
    assert had() is None
    shelf.write(OTHER, DATA)
    assert names(place) == [file.name]


# --- space -----------------------------------------------------------------------------------------------


def test_no_more_than_eight_are_kept_and_those_go_first_that_were_not_used_for_longest(place: Path) -> None:
    for number in range(shelf.MOST_FILES):
        shelf.write(str(number), DATA)
        os.utime(place / f"{number}.kept", (number, number))
    assert had("0") == DATA, "which is a use"
    shelf.write("more", DATA)
    assert had("1") is None
    assert sorted(names(place)) == sorted(f"{name}.kept" for name in ("0", *range(2, shelf.MOST_FILES), "more"))


def test_what_somebody_who_was_killed_has_left_goes_with_the_next_that_is_kept(place: Path) -> None:
    place.mkdir(0o700)
    for name in (NAME, OTHER):
        (place / f"{name}.new").write_bytes(b"half")
    shelf.write(NAME, DATA)
    assert names(place) == [f"{NAME}.kept"]


def test_whoever_comes_while_another_keeps_something_leaves_it_to_him(place: Path, file: Path) -> None:
    directory = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        shelf.write(NAME, b"new")
        assert had() == DATA
    finally:
        os.close(directory)
    shelf.write(NAME, b"new")
    assert had() == b"new"


def test_many_that_keep_and_read_at_once_have_each_all_or_nothing() -> None:
    shelf.write(NAME, DATA)
    found: set[bytes | None] = set()

    def keep_and_read(data: bytes) -> None:
        for _ in range(200):
            shelf.write(NAME, data)
            found.add(had())

    writers = [threading.Thread(target=keep_and_read, args=(letter * 5000,)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert found <= {DATA, *(letter * 5000 for letter in (b"a", b"b", b"c"))}


MOUNTED = """
set -e
place=$1 options=$2
shift 2
mount -t tmpfs -o mode=700,uid=0 tmpfs "$place"
printf x > "$place/other"
mount -o "remount,$options" "$place"
exec "$@"
"""
KEEPING = """
import os, sys
from npd6_xdp.system.bpf import shelf
shelf.write("one", bytes(20_000))
print(shelf.read("one", bytes), os.listdir(os.environ["CACHE_DIRECTORY"]))
"""


@needs_root
@pytest.mark.parametrize("options", ["ro", "size=8k", "nr_inodes=2"])
def test_where_there_is_no_space_or_nothing_may_be_written_nothing_is_kept_and_nothing_left(
    place: Path, options: str
) -> None:
    place.mkdir()
    words = ("unshare", "--mount", "sh", "-c", MOUNTED, "sh", str(place), options, sys.executable, "-c", KEEPING)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("None ['other']\n", "")
