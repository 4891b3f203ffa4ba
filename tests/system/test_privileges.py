# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read of every process of the machine, while processes come and go."""

from __future__ import annotations

import subprocess

from npd6_xdp.system.other_daemons import other_daemons
from npd6_xdp.system.privileges import holders_of_program

COMING_AND_GOING = "i=0; while [ $i -lt 8000 ]; do (:); i=$((i + 1)); done"
NOBODY_S = 0xFFFFFFFF
"""An id that no program has."""


def test_a_process_that_ends_while_it_is_looked_at_is_left_out() -> None:
    with subprocess.Popen(["/bin/sh", "-c", COMING_AND_GOING]) as shell:
        looks = 0
        while shell.poll() is None:
            assert not holders_of_program(NOBODY_S)
            assert not other_daemons()
            looks += 1
    assert looks > 10
