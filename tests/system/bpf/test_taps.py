# SPDX-License-Identifier: GPL-2.0-or-later
"""A tap that gives nothing but errors."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing, nullcontext
from typing import NoReturn

import pytest

from npd6_xdp.system import packets
from npd6_xdp.system.bpf.taps import Taps


@pytest.mark.parametrize(("code", "ends"), [(errno.ENETDOWN, True), (errno.ENOTSOCK, False)])
def test_a_tap_that_is_broken_is_an_error_and_one_of_an_interface_that_is_down_is_none(
    monkeypatch: pytest.MonkeyPatch, code: int, ends: bool
) -> None:
    def fail(_: socket.socket, __: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(packets, "receive", fail)
    ready, other = socket.socketpair()
    with closing(Taps()) as found, other, nullcontext() if ends else pytest.raises(OSError, match=os.strerror(code)):
        found._sockets.add(1, ready)
        other.send(b"x")
        assert list(found.take_tags()) == []
