# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read of every process of the machine, while processes come and go."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from npd6_xdp.system.other_daemons import other_daemons
from npd6_xdp.system.privileges import holders_of_program

COMING_AND_GOING = "i=0; while [ $i -lt 8000 ]; do (:); i=$((i + 1)); done"
NOBODY_S = 0xFFFFFFFF
"""An id that no program has."""


@pytest.mark.parametrize("look", [lambda: holders_of_program(NOBODY_S), other_daemons])
def test_a_process_that_ends_while_it_is_looked_at_is_left_out(look: Callable[[], object]) -> None:
    with subprocess.Popen(["/bin/sh", "-c", COMING_AND_GOING]) as shell:
        looks = 0
        while shell.poll() is None:
            assert not look()
            looks += 1
    assert looks > 10
