# SPDX-License-Identifier: GPL-2.0-or-later
"""The service manager's store, as a manager sees it on a real datagram socket: what comes with which descriptors."""

from __future__ import annotations

import logging
import os
import random
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from npd6_xdp.system.fd_store import MOST_NAMES, FdStore
from npd6_xdp.system.manager import ServiceManager


class Manager:
    """Does what systemd does: keeps what comes with FDSTORE, under its name."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(60)
        self.kept: list[tuple[str, int]] = []
        self.polled: list[str] = []

    def take(self) -> str:
        """Do what the next message asks for; its first line."""
        message, fds, _, _ = socket.recv_fds(self.socket, 4096, 8)
        lines = message.decode().splitlines()
        words = dict(line.split("=", 1) for line in lines)
        if words.get("FDSTORE") == "1":
            for fd in fds:
                if any(same(fd, kept) for _, kept in self.kept):  # it has each file once
                    os.close(fd)
                else:
                    self.kept.append((words["FDNAME"], fd))
            self.polled += [words["FDNAME"]] if words.get("FDPOLL") != "0" else []
            return lines[0]
        if words.get("FDSTOREREMOVE") == "1":
            for each in [each for each in self.kept if each[0] == words["FDNAME"]]:
                self.kept.remove(each)
                os.close(each[1])
        for fd in fds:
            os.close(fd)
        return lines[0]

    def be_busy(self) -> None:
        """As if he had heard nothing for a while: there is no space in his queue for more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"BUSY=1", self.path)

    def catch_up(self) -> list[str]:
        """Do what all messages ask for that are there; their first lines, but for those of be_busy()."""
        found = []
        while select.select([self.socket], [], [], 0)[0]:
            found.append(self.take())
        return [line for line in found if line != "BUSY=1"]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.kept]

    def close(self) -> None:
        self.socket.close()
        for _, fd in self.kept:
            os.close(fd)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(tmp_path)) as manager:
        yield manager


def store_of(manager: Manager, **environment: str) -> FdStore:
    words = {"NOTIFY_SOCKET": manager.path, "FDSTORE": "16", **environment}
    return FdStore(ServiceManager(words).send, words)


def at_work(manager: Manager) -> FdStore:
    """One whose manager isn't waited for."""
    words = {"NOTIFY_SOCKET": manager.path, "FDSTORE": "16"}
    service = ServiceManager(words)
    service.ready("")
    assert manager.catch_up() == ["READY=1"]
    return FdStore(service.send, words)


def due(store: FdStore) -> float:
    assert store.due is not None
    return store.due


def count_open() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def same(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def test_what_is_kept_comes_as_a_descriptor_under_its_name_whatever_becomes_of_it(manager: Manager) -> None:
    store = store_of(manager)
    assert store
    with Path(os.devnull).open() as file:
        assert store.keep("link-7", file.fileno())
        assert manager.take() == "FDSTORE=1"
        ((name, fd),) = manager.kept
        assert (name, same(fd, file.fileno())) == ("link-7", True)
    assert manager.polled == [], "a packet socket says POLLERR when its interface goes down"
    store.release("link-7")
    assert manager.take() == "FDSTOREREMOVE=1"
    assert manager.kept == []


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"FDSTORE": "16"},
        {"NOTIFY_SOCKET": "/nowhere"},
        {"NOTIFY_SOCKET": "/nowhere", "FDSTORE": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "FDSTORE": "some"},
    ],
    ids=["nobody", "no manager", "no store", "none kept", "nonsense"],
)
def test_where_there_is_no_store_nothing_is_said(environment: dict[str, str]) -> None:
    said: list[str] = []

    def notify(message: str, fds: object) -> bool:
        said.append(message)
        return True

    store = FdStore(notify, environment)
    assert not store
    assert not store.keep("link-7", 0)
    store.release("link-7")
    assert said == []


def test_a_manager_who_cant_be_told_keeps_nothing(tmp_path: Path) -> None:
    words = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "FDSTORE": "16"}
    store = FdStore(ServiceManager(words).send, words)
    assert not store.keep("link-7", 0)


# A process of its own, since what is inherited has the numbers from 3 on: what it says of it, and of its environment.
_SUCCESSOR = """
import os, sys
for number in range(int(sys.argv[1])):
    read, write = os.pipe()
    os.close(write)
    os.dup2(read, 3 + number, inheritable=True)
    if read >= 3 + int(sys.argv[1]):
        os.close(read)
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[2]))
from npd6_xdp.system.fd_store import MOST_NAMES, FdStore
store = FdStore(lambda message, fds: True)
print({name: [(fd, os.get_inheritable(fd)) for fd in fds] for name, fds in store.inherited.items()},
      [name for name in os.environ if name.startswith("LISTEN_")])
"""


def inherited(count: int, *, fds: str, names: str | None, pid: int = 0) -> str:
    environment = {**os.environ, "LISTEN_FDS": fds} | ({} if names is None else {"LISTEN_FDNAMES": names})
    words = [sys.executable, "-c", _SUCCESSOR, str(count), str(pid)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ("link-7:link-8", "{'link-7': [(3, False)], 'link-8': [(4, False)]}"),
        ("link-7:link-7", "{'link-7': [(3, False), (4, False)]}"),
        ("link-7", "{'link-7': [(3, False)], 'unknown': [(4, False)]}"),
        ("link-7:web:more", "{'link-7': [(3, False)], 'web': [(4, False)]}"),
        (None, "{'unknown': [(3, False), (4, False)]}"),
    ],
)
def test_a_successor_has_each_by_its_name_and_hands_none_on(names: str | None, wanted: str) -> None:
    assert inherited(2, fds="2", names=names) == f"{wanted} []"


def test_what_is_for_another_process_isnt_taken() -> None:
    assert inherited(2, fds="2", names="link-7:link-8", pid=1) == "{} []"


@pytest.mark.parametrize("fds", ["", "-1", "two", "²", "9" * 5000])
def test_a_count_that_is_none_means_nothing(fds: str) -> None:
    assert inherited(1, fds=fds, names="link-7") == "{} []"


def test_what_isnt_open_was_never_handed_over() -> None:
    assert inherited(1, fds="500", names=":".join(f"link-{n}" for n in range(500))).startswith(
        "{'link-0': [(3, False)]"
    )


def test_what_was_inherited_is_closed_when_it_is_released(manager: Manager) -> None:
    store = store_of(manager)
    with Path(os.devnull).open() as file:
        store.inherited["web"] = [os.dup(file.fileno()), os.dup(file.fileno())]
    held = [*store.inherited["web"]]
    store.release("web")
    assert manager.take() == "FDSTOREREMOVE=1"
    assert store.inherited == {}
    for fd in held:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_no_more_is_kept_than_a_successor_can_be_told_of(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []

    def notify(message: str, _: object) -> bool:
        said.append(message)
        return True

    store = FdStore(notify, {"NOTIFY_SOCKET": "/nowhere", "FDSTORE": "99999"})
    name = "x" * 1023
    kept = [store.keep(f"{name[:-4]}{number:04}", 0) for number in range(200)]
    assert kept == [number < MOST_NAMES // 1024 for number in range(200)]
    assert len(said) == MOST_NAMES // 1024
    (line,) = caplog.messages
    assert "keeps no more than 127" in line
    store.release(f"{name[:-4]}0000")
    assert store.keep("again", 0)


def test_what_a_busy_manager_didnt_hear_is_said_again_though_the_descriptor_is_closed_by_then(manager: Manager) -> None:
    store, before = at_work(manager), count_open()
    manager.be_busy()
    with Path(os.devnull).open() as file:
        assert not store.keep("link-7", file.fileno())
    store.say(due(store))
    assert manager.catch_up() == []
    with Path("/dev/zero").open() as another, Path(os.devnull).open() as file:  # which has the other's number
        store.say(due(store))
        assert manager.catch_up() == ["FDSTORE=1"]
        ((name, fd),) = manager.kept
        assert (name, same(fd, file.fileno()), same(fd, another.fileno())) == ("link-7", True, False)
    assert manager.polled == []
    store.say(due(store) if store.due else 0.0)
    assert store.due is None, "there is no more to say"
    assert count_open() == before + 1, "the manager's own, which is of this process here"


def test_another_name_for_a_file_is_said_behind_the_end_of_the_one_before(manager: Manager) -> None:
    """He has each file once: the other way round he would have it under neither."""
    store = at_work(manager)
    with Path(os.devnull).open() as file:
        store.keep("link-7-old", file.fileno())
        manager.catch_up()
        manager.be_busy()
        store.release("link-7-old")
        store.keep("link-7-new", file.fileno())
        manager.catch_up()
        assert manager.names == ["link-7-old"]
        store.say(due(store))
        assert manager.catch_up() == ["FDSTOREREMOVE=1", "FDSTORE=1"]
    assert manager.names == ["link-7-new"]


def test_what_is_let_go_of_before_he_heard_of_it_is_not_said_and_gathers_nowhere(manager: Manager) -> None:
    store, before = at_work(manager), count_open()
    manager.be_busy()
    with Path(os.devnull).open() as file:
        for number in range(1000):
            store.keep(f"link-7-{number}", file.fileno())
            store.release(f"link-7-{number}")
    assert count_open() == before
    manager.catch_up()
    store.say(due(store))
    assert manager.catch_up() == []
    assert store.due is None


def test_that_he_is_busy_is_said_once_where_it_lasts_and_so_is_its_end(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "npd6-xdp")
    store = at_work(manager)
    with Path(os.devnull).open() as file:
        for said_of in range(1, 3):
            manager.be_busy()
            store.keep(f"link-{said_of}", file.fileno())
            store.say(due(store))
            assert caplog.messages == [], "a moment"
            for _ in range(3):
                store.say(due(store))
            assert caplog.messages == [
                "the service manager is too busy to hear 1 of what our successor needs: said again until it does"
            ]
            caplog.clear()
            manager.catch_up()
            store.say(due(store))
            assert caplog.messages == ["the service manager has heard all that our successor needs"]
            caplog.clear()
            manager.catch_up()


def test_no_turn_is_held_by_thousands_that_are_to_be_said() -> None:
    heard: list[str] = []
    is_busy = True

    def notify(message: str, _: object) -> bool:
        if not is_busy:
            heard.append(message)
        return not is_busy

    store = FdStore(notify, {"NOTIFY_SOCKET": "/nowhere", "FDSTORE": "99999"})
    for number in range(500):
        store.keep(f"link-{number}", 0)
    is_busy = False
    turns = 0
    while store.due is not None:
        before = len(heard)
        store.say(store.due)
        turns += 1
        assert len(heard) - before <= 64
    assert [message.rpartition("=")[2] for message in heard] == [f"link-{number}" for number in range(500)]
    assert turns >= 8


@pytest.mark.parametrize("hears", [True, False])
def test_at_the_end_it_is_tried_for_the_last_time_and_said_where_it_fails(
    manager: Manager, caplog: pytest.LogCaptureFixture, hears: bool
) -> None:
    store, before = at_work(manager), count_open()
    manager.be_busy()
    with Path(os.devnull).open() as file:
        store.keep("link-7", file.fileno())
    if hears:
        manager.catch_up()
    store.close()
    manager.catch_up()
    assert manager.names == (["link-7"] if hears else [])
    assert [line.partition(":")[0] for line in caplog.messages] == (
        [] if hears else ["the service manager was too busy to hear 1 of what our successor needs"]
    )
    assert count_open() == before + len(manager.kept)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_while_he_is_busy_he_has_in_the_end_what_is_wanted(manager: Manager, seed: int) -> None:
    chance, store, before = random.Random(seed), at_work(manager), count_open()  # noqa: S311
    wanted: dict[str, int] = {}  # and the descriptor, which may go by another name next
    files = [os.memfd_create(str(number)) for number in range(6)]
    try:
        for _ in range(400):
            free = [fd for fd in files if fd not in wanted.values()]
            names = [name for name in "abcdefgh" if name not in wanted]
            match chance.randrange(6):
                case 0 | 1 if free:
                    name, fd = chance.choice(names), chance.choice(free)
                    wanted[name] = fd
                    store.keep(name, fd)
                case 2 if wanted:
                    name = chance.choice([*wanted])
                    store.release(name)
                    del wanted[name]
                case 3:
                    manager.be_busy()
                case 4:
                    for _ in range(chance.randrange(8)):
                        if select.select([manager.socket], [], [], 0)[0]:
                            manager.take()
                case 5 if store.due is not None:
                    store.say(store.due)
        while store.due is not None:
            manager.catch_up()
            store.say(store.due)
        manager.catch_up()
        assert sorted(manager.names) == sorted(wanted)
        assert all(same(fd, wanted[name]) for name, fd in manager.kept)
        assert count_open() == before + len(files) + len(manager.kept)
    finally:
        for fd in files:
            os.close(fd)
