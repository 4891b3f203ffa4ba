# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells the service manager our state, by the datagrams of sd_notify(3), if NOTIFY_SOCKET is set.

PyPI's and Debian's `sdnotify` is the same few lines, and has had no release since 2017; so they are here.
"""

from __future__ import annotations

import array
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from npd6_xdp.core.logged import fields
from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

_READY = "READY=1"
_PATIENCE = 1.0  # seconds that a message may wait for a manager that is busy
_STEP = 60.0  # seconds that a step of a start or a reload may take, where there is no watchdog; else twice its time
_EXTENSIONS = 4  # messages in the time of a step, at most
_AGAIN = 1.0  # seconds until what he hasn't heard is said again
_UNNOTICED = 1.0  # seconds that he may be too busy for before the log says so
_SOON, _BEHIND = 0.05, 5.0  # seconds between looks at what is to be said before, and for which it is waited for at most


class ServiceManager:
    """The service manager: systemd, under Type=notify. Nobody waits for him to hear how we are: what he hasn't heard is
    said again, as far as it still holds, by tick(), which the loop calls when it is `due` (seconds, monotonic). Where
    he has a watchdog, that gets a sign of life then, twice in the time that it waits.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self._said = Said()
        self._gets_through = True
        self._is_at_work = False
        self._pause = _watchdog_seconds(environment) / 2
        self._step = 4 * self._pause or _STEP
        self._extended_at = -math.inf
        self._feed_at: float | None = time.monotonic() if self._address and self._pause else None
        self._unheard = ""  # what is to be said again
        self._unheard_since = 0.0
        self._again_at: float | None = None
        self._is_held_up: Callable[[], bool] = lambda: False
        self._held_up_since: float | None = None

    @property
    def due(self) -> float | None:
        """When to call tick(); None: all is said, and there is no watchdog."""
        return min((at for at in (self._feed_at, self._again_at) if at is not None), default=None)

    def behind(self, is_held_up: Callable[[], bool]) -> None:
        """That we are ready is said behind something else: not while that is held up, for five seconds at most."""
        self._is_held_up = is_held_up

    def ready(self, status: str) -> None:
        """The start, or a reload, is done. `status` is a line for `systemctl status`."""
        self._is_at_work = True
        self._status = status
        self._tell(f"{_READY}\nSTATUS={status}")

    def went_on(self, seconds: float = 0.0) -> None:
        """A start or a reload has done a step. Where it takes longer than the unit allows (TimeoutStartSec=), it isn't
        ended before the next one has taken too long. `seconds`: how much longer that may take than others.
        """
        now = time.monotonic()
        if seconds or now - self._extended_at >= self._step / _EXTENSIONS:
            self._extended_at = now
            self._attempt(f"EXTEND_TIMEOUT_USEC={round((self._step + seconds) * 1e6)}")

    def status(self, status: str) -> None:
        """Another line for `systemctl status`; nothing is sent where it is the same."""
        if status != self._status:
            self._status = status
            self._tell(f"{_READY}\nSTATUS={status}" if self._unheard.startswith(_READY) else f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; ready() says that it is over, whatever became of it, and so this isn't said twice. That the
        one before was over isn't said meanwhile: he would take it for the end of this one.
        """
        if self._unheard.startswith(_READY):
            self._again_at, self._unheard = None, ""
        # the time is for Type=notify-reload, of systemd 253 and newer
        self._attempt(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._is_at_work, self._gets_through = False, True
        self._again_at, self._unheard = None, ""
        if error := self._attempt("STOPPING=1\nSTATUS=ending", patience=_PATIENCE):
            self._say(error)

    def tick(self, now: float) -> None:
        """Do what is due. Only what the watchdog watches, the loop, may call this."""
        if self._feed_at is not None and self._feed_at <= now:
            unheard = self._attempt("WATCHDOG=1") is not None
            self._feed_at = now + (min(self._pause, _AGAIN) if unheard else self._pause)
        if self._again_at is not None and self._again_at <= now:
            self._tell(self._unheard)

    def send(self, message: str, fds: Sequence[int] = ()) -> bool:
        """Send one of many messages, and descriptors beside it; whether it went out, which is the caller's to tell.

        Behind one that didn't, it waits for nobody: a manager that hangs isn't to hang thousands of ports. Nor does it
        while we are at work, when whoever waits holds the loop.
        """
        is_patient = self._gets_through and not self._is_at_work
        error = self._attempt(message, fds, patience=_PATIENCE if is_patient else 0.0)
        self._gets_through = bool(self._address) and error is None
        return self._gets_through

    def _tell(self, message: str) -> None:
        """Say how we are, now or as soon as he hears it; what was unheard before holds no more."""
        now = time.monotonic()
        if message.startswith(_READY) and self._waits(now):
            self._unheard_since = self._unheard_since if self._unheard else now
            self._again_at, self._unheard = now + _SOON, message
            return
        error = self._attempt(message)
        if error is None:
            if message.startswith(_READY):
                self._held_up_since = None
            if self._unheard and "" in self._said:
                self._said.over()
                log.info("the service manager has heard how we are")
            self._again_at, self._unheard = None, ""
            return
        self._unheard_since = self._unheard_since if self._unheard else now
        self._again_at, self._unheard = now + _AGAIN, message
        if not isinstance(error, BlockingIOError) or now - self._unheard_since >= _UNNOTICED:
            self._say(error)

    def _waits(self, now: float) -> bool:
        """Whether what comes before is held up, and not for too long yet."""
        if not self._is_held_up():
            return False
        if self._held_up_since is None:
            self._held_up_since = now
        return now - self._held_up_since < _BEHIND

    def _say(self, error: OSError) -> None:
        if self._said.note():
            why = error.strerror or str(error)
            log.warning("NOTIFY_SOCKET: can't tell the service manager how we are: %s", why, extra=fields(error=why))

    def _attempt(self, message: str, fds: Sequence[int] = (), *, patience: float = 0.0) -> OSError | None:
        """Send a message; why that can't be."""
        if not self._address:
            return None
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(patience)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                manager.sendmsg([message.encode()], rights, 0, self._address)
        except OSError as error:
            return error
        return None


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """WATCHDOG_USEC of sd_watchdog_enabled(3) in seconds, if meant for this process; 0.0: there is no watchdog."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdigit() else 0.0
