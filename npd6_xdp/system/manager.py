# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells the service manager our state, by the datagrams of sd_notify(3), if NOTIFY_SOCKET is set.

PyPI's and Debian's `sdnotify` is the same few lines, and has had no release since 2017; so they are here.
"""

from __future__ import annotations

import array
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence

from npd6_xdp.core.said import Said

log = logging.getLogger("npd6-xdp")

_PATIENCE = 1.0  # seconds that a message may wait for a manager that is busy


class ServiceManager:
    """The service manager: systemd, under Type=notify. `due` is when its watchdog is to get a sign of life (seconds,
    monotonic), twice in the time that it waits; None: there is no watchdog.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self._said = Said()
        self._gets_through = True
        self._is_at_work = False
        self._pause = _watchdog_seconds(environment) / 2
        self.due: float | None = time.monotonic() if self._address and self._pause else None

    def ready(self, status: str) -> None:
        """The start, or a reload, is done. `status` is a line for `systemctl status`."""
        self._is_at_work = True
        self._status = status
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Another line for `systemctl status`; nothing is sent where it is the same."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; ready() says that it is over, whatever became of it."""
        # the time is for Type=notify-reload, of systemd 253 and newer
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._is_at_work, self._gets_through = False, True
        self._send("STOPPING=1\nSTATUS=ending")

    def feed(self, now: float) -> None:
        """Give a sign of life. Only what the watchdog watches, the loop, may call this."""
        self.due = now + self._pause
        self._send("WATCHDOG=1")

    def send(self, message: str, fds: Sequence[int] = ()) -> bool:
        """Send one of many messages, and descriptors beside it; whether it went out, which is the caller's to tell.

        Behind one that didn't, it waits for nobody: a manager that hangs isn't to hang thousands of ports. Nor does it
        while we are at work, when whoever waits holds the loop.
        """
        is_patient = self._gets_through and not self._is_at_work
        self._gets_through = bool(self._address) and not self._attempt(message, fds, _PATIENCE if is_patient else 0.0)
        return self._gets_through

    def _send(self, message: str) -> None:
        if (why := self._attempt(message, (), _PATIENCE)) and self._said.note():
            log.warning("NOTIFY_SOCKET: can't tell the service manager how we are: %s", why)

    def _attempt(self, message: str, fds: Sequence[int], patience: float) -> str:
        """Send a message; why that can't be, or ""."""
        if not self._address:
            return ""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(patience)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                manager.sendmsg([message.encode()], rights, 0, self._address)
        except OSError as error:
            return error.strerror or str(error)
        return ""


def _watchdog_seconds(environment: Mapping[str, str]) -> float:
    """WATCHDOG_USEC of sd_watchdog_enabled(3) in seconds, if meant for this process; 0.0: there is no watchdog."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdigit() else 0.0
