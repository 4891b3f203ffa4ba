# SPDX-License-Identifier: GPL-2.0-or-later
"""The service manager's store, as a manager sees it on a real datagram socket: what comes with which descriptors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from npd6_xdp.system.fd_store import MOST_NAMES, FdStore
from npd6_xdp.system.manager import ServiceManager


class Manager:
    """Does what systemd does: keeps what comes with FDSTORE, under its name."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(60)
        self.kept: list[tuple[str, int]] = []
        self.polled: list[str] = []

    def take(self) -> str:
        """Do what the next message asks for; its first line."""
        message, fds, _, _ = socket.recv_fds(self._socket, 4096, 8)
        lines = message.decode().splitlines()
        words = dict(line.split("=", 1) for line in lines)
        if words.get("FDSTORE") == "1":
            self.kept += [(words["FDNAME"], fd) for fd in fds]
            self.polled += [words["FDNAME"]] if words.get("FDPOLL") != "0" else []
            return lines[0]
        if words.get("FDSTOREREMOVE") == "1":
            for each in [each for each in self.kept if each[0] == words["FDNAME"]]:
                self.kept.remove(each)
                os.close(each[1])
        for fd in fds:
            os.close(fd)
        return lines[0]

    def close(self) -> None:
        self._socket.close()
        for _, fd in self.kept:
            os.close(fd)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(tmp_path)) as manager:
        yield manager


def store_of(manager: Manager, **environment: str) -> FdStore:
    words = {"NOTIFY_SOCKET": manager.path, "FDSTORE": "16", **environment}
    return FdStore(ServiceManager(words).send, words)


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
