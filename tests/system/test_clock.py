# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's clock, in a time namespace and outside of any."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from npd6_xdp.system.clock import machine_ns, offset

_SAYS = "from npd6_xdp.system.clock import machine_ns; print(machine_ns())"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("monotonic           0         0\nboottime            0         0\n", 0),
        ("monotonic      100000       500\nboottime           -7         0\n", 100_000_000_000_500),
        ("monotonic       -1001 999999999\nboottime            7         0\n", -1_000_000_000_001),
        ("", 0),
    ],
)
def test_an_offset_is_seconds_that_may_be_negative_and_nanoseconds_that_are_not(text: str, nanoseconds: int) -> None:
    assert offset(text) == nanoseconds


def test_outside_of_a_time_namespace_it_is_the_monotonic_clock() -> None:
    before = time.monotonic_ns()
    assert before <= machine_ns() <= time.monotonic_ns()


@pytest.mark.skipif(os.geteuid() != 0, reason="a time namespace needs root")
@pytest.mark.parametrize("shift", [100_000, -1])
def test_in_a_time_namespace_it_is_the_machines(shift: int) -> None:
    before = time.monotonic_ns()
    words = ["unshare", "--time", "--monotonic", str(shift), "--fork", sys.executable, "-c", _SAYS]
    said = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert before <= said <= time.monotonic_ns()
