# SPDX-License-Identifier: GPL-2.0-or-later
"""What wakes a loop on a signal."""

from __future__ import annotations

import select
import signal
from collections.abc import Iterator
from contextlib import closing

import pytest

from npd6_xdp.system.wakeup import Wakeup


@pytest.fixture(autouse=True)
def _handled() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR2, before)


def is_woken(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup], [], [], 0)[0])


def test_a_signal_wakes_until_it_is_taken() -> None:
    with closing(Wakeup()) as wakeup:
        assert not is_woken(wakeup)
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR2)
        assert is_woken(wakeup)
        wakeup.take()
        assert not is_woken(wakeup)
        with pytest.raises(BlockingIOError):
            wakeup.take()


def test_one_that_stood_in_before_is_closed_without_harm_to_the_one_in_use() -> None:
    before = Wakeup()
    with closing(Wakeup()) as wakeup:
        before.close()
        signal.raise_signal(signal.SIGUSR2)
        assert is_woken(wakeup)
    assert signal.set_wakeup_fd(-1) == -1, "nothing is left behind"
