# SPDX-License-Identifier: GPL-2.0-or-later
"""What the service manager hears, on a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from npd6_xdp.system import manager as manager_module
from npd6_xdp.system.manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """NOTIFY_SOCKET, and what has come in there since it was last looked at."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@npd6-xdp-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.setblocking(False)

        def read() -> list[str]:
            found = []
            while True:
                try:
                    found.append(manager.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield name, read


def test_it_tells_each_state_in_a_message(heard: tuple[str, Callable[[], list[str]]]) -> None:
    name, read = heard
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    manager.ready("2 rules on wan0")
    assert read() == ["READY=1\nSTATUS=2 rules on wan0"]
    manager.status("2 rules on wan0")
    assert read() == []
    manager.status("2 rules on wan0, wan1")
    assert read() == ["STATUS=2 rules on wan0, wan1"]
    manager.reloading()
    (reloading,) = read()
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    manager.stopping()
    assert read() == ["STOPPING=1\nSTATUS=ending"]
    assert manager.due is None, "no watchdog asks for more"


def test_the_watchdog_is_fed_twice_in_the_time_that_it_waits(heard: tuple[str, Callable[[], list[str]]]) -> None:
    name, read = heard
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    assert manager.due is not None
    now = manager.due
    manager.tick(now)
    assert manager.due == now + 1.5
    assert read() == ["WATCHDOG=1"]


@pytest.mark.parametrize(("watchdog", "step"), [({}, 60), ({"WATCHDOG_USEC": "3000000"}, 6)])
def test_each_step_of_a_start_has_twice_the_watchdogs_time_and_not_each_is_a_message(
    heard: tuple[str, Callable[[], list[str]]], watchdog: dict[str, str], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(manager_module, "time", SimpleNamespace(monotonic=lambda: now, monotonic_ns=time.monotonic_ns))
    name, read = heard
    manager = ServiceManager({"NOTIFY_SOCKET": name, **watchdog})
    manager.went_on(90.0)
    assert read() == [f"EXTEND_TIMEOUT_USEC={step + 90}000000"], "the next one may take longer"
    for _ in range(1000):
        manager.went_on()
        now += step / 1000
    assert read() == [f"EXTEND_TIMEOUT_USEC={step}000000"] * 3, "long before the last one's time is over"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "3000000"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
    ],
)
def test_a_watchdog_that_is_absent_or_another_process_s_is_not_fed(environment: dict[str, str]) -> None:
    assert ServiceManager(environment).due is None


def test_without_a_manager_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    manager = ServiceManager({})
    manager.ready("2 rules on wan0")
    manager.reloading()
    manager.stopping()
    assert caplog.records == []


def test_a_manager_that_is_gone_is_said_once(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    with caplog.at_level(logging.WARNING, "npd6-xdp"):
        manager.ready("2 rules on wan0")
        manager.tick(time.monotonic() + 10.0)
        manager.stopping()
    assert [record.getMessage() for record in caplog.records] == [
        "NOTIFY_SOCKET: can't tell the service manager how we are: No such file or directory"
    ]


def test_a_manager_that_hangs_is_waited_for_once_and_not_by_each_descriptor_that_he_is_to_keep(
    heard: tuple[str, Callable[[], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "_PATIENCE", 0.5)
    name, read = heard
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    while manager.send("FDSTORE=1", [0]):  # the kernel's queue for him is short
        pass
    began = time.monotonic()
    assert not any(manager.send("FDSTORE=1", [0]) for _ in range(200))
    assert time.monotonic() - began < 50, "and not 100"
    assert read()
    assert manager.send("FDSTORE=1", [0])


def test_the_loop_waits_for_no_manager_who_is_to_keep_a_descriptor_but_the_end_does(
    heard: tuple[str, Callable[[], list[str]]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waited: list[float | None] = []

    class Socket(socket.socket):
        def settimeout(self, value: float | None, /) -> None:
            waited.append(value)
            super().settimeout(value)

    name, read = heard
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    monkeypatch.setattr(socket, "socket", Socket)
    manager.ready("2 rules on wan0")
    waited.clear()
    while manager.send("FDSTORE=1", [0]):
        pass
    assert {*waited} == {0.0}
    assert caplog.messages == [], "who wants it kept says it again"
    read()
    manager.stopping()
    waited.clear()
    assert manager.send("FDSTORE=1", [0])
    assert waited == [1.0]


# --- a manager who is too busy ----------------------------------------------------------------------------------


@pytest.fixture
def busy(heard: tuple[str, Callable[[], list[str]]]) -> tuple[ServiceManager, Callable[[], list[str]]]:
    """One who hears nothing, until what was sent to him is read; what else has come by then."""
    name, read = heard
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
        other.setblocking(False)
        while True:
            other.sendto(b"BUSY=1", name.replace("@", "\0"))
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"})
    return manager, lambda: [each for each in read() if each != "BUSY=1"]


def test_what_a_busy_manager_hasnt_heard_is_said_again_until_he_has(
    busy: tuple[ServiceManager, Callable[[], list[str]]], caplog: pytest.LogCaptureFixture
) -> None:
    """Else a start that got ready is ended after TimeoutStartSec=."""
    manager, read = busy
    began = time.monotonic()
    with caplog.at_level(logging.INFO, "npd6-xdp"):
        manager.ready("2 rules on wan0")
        assert manager.due is not None
        assert manager.due <= time.monotonic() + 1.0
        assert caplog.messages == [], "that is nothing yet"
        manager._unheard_since = began - 5.0
        manager.tick(began + 5.0)
        assert read() == []
        manager.tick(began + 10.0)
        assert read() == ["WATCHDOG=1", "READY=1\nSTATUS=2 rules on wan0"]
        manager.tick(began + 40.0)
    assert caplog.messages == [
        "NOTIFY_SOCKET: can't tell the service manager how we are: Resource temporarily unavailable",
        "the service manager has heard how we are",
    ]
    assert read() == ["WATCHDOG=1"], "and it isn't said twice"


def test_what_he_hears_later_is_what_holds_by_then(busy: tuple[ServiceManager, Callable[[], list[str]]]) -> None:
    manager, read = busy
    manager.ready("2 rules on wan0")
    manager.status("2 rules on wan0, wan1")
    manager.reloading()
    manager.ready("3 rules on wan0")
    manager.status("3 rules on wan0, wan1")
    read()
    manager.tick(time.monotonic() + 10.0)
    assert [each for each in read() if each != "WATCHDOG=1"] == ["READY=1\nSTATUS=3 rules on wan0, wan1"]
    manager.tick(time.monotonic() + 10.0)
    assert read() == []


def test_that_we_are_ready_is_said_behind_what_is_to_be_said_before_but_not_too_late(
    heard: tuple[str, Callable[[], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that he has heard of, and that has left nothing with him yet, would have a successor without anything."""
    now, unsaid = 1000.0, True
    monkeypatch.setattr(manager_module, "time", SimpleNamespace(monotonic=lambda: now, monotonic_ns=time.monotonic_ns))
    name, read = heard
    manager = ServiceManager({"NOTIFY_SOCKET": name})
    manager.behind(lambda: unsaid)

    def turns(seconds: float) -> list[str]:
        nonlocal now
        ends = now + seconds
        while manager.due is not None and manager.due < ends:
            now = manager.due
            manager.tick(now)
        now = ends
        return read()

    manager.ready("2 rules on wan0")
    manager.status("2 rules on wan0, wan1")
    assert turns(4.5) == []
    unsaid = False
    assert turns(0.1) == ["READY=1\nSTATUS=2 rules on wan0, wan1"]
    unsaid = True
    manager.status("2 rules on wan0")
    assert read() == ["STATUS=2 rules on wan0"], "that is no news to wait with"
    manager.ready("3 rules on wan0")
    assert turns(3.0) == []
    manager.reloading()
    assert [each.partition("\n")[0] for each in turns(1.0)] == ["RELOADING=1"], (
        "that the one before is over would end it"
    )
    manager.ready("4 rules on wan0")
    assert turns(0.5) == []
    assert turns(1.0) == ["READY=1\nSTATUS=4 rules on wan0"], "five seconds after the first time"
    assert manager.due is None


def test_a_status_alone_is_no_word_that_a_reload_is_over(
    busy: tuple[ServiceManager, Callable[[], list[str]]],
) -> None:
    manager, read = busy
    manager.status("2 rules on wan0")
    read()
    manager.tick(time.monotonic() + 10.0)
    assert [each for each in read() if each != "WATCHDOG=1"] == ["STATUS=2 rules on wan0"]


def test_at_the_end_only_that_is_said(busy: tuple[ServiceManager, Callable[[], list[str]]]) -> None:
    manager, read = busy
    manager.ready("2 rules on wan0")
    read()
    manager.stopping()
    assert read() == ["STOPPING=1\nSTATUS=ending"]


def test_a_sign_of_life_that_isnt_heard_is_given_again_soon(
    busy: tuple[ServiceManager, Callable[[], list[str]]],
) -> None:
    """Not after half of the watchdog's time, of which another such one would be its end."""
    manager, read = busy
    now = manager.due
    assert now is not None
    manager.tick(now)
    assert manager.due == now + 1.0
    read()
    manager.tick(now + 1.0)
    assert read() == ["WATCHDOG=1"]
    assert manager.due == now + 16.0
