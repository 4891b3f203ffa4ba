# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user is told of errors, in how many lines."""

from __future__ import annotations

from npd6_xdp.core.errors import MOST_MISTAKES, in_few_lines


def test_of_many_lines_the_first_are_told_and_how_many_more_there_are() -> None:
    lines = [f"lan{number}: it is a tunnel" for number in range(4_000)]
    for count in (1, MOST_MISTAKES):
        assert in_few_lines("\n".join(lines[:count])) == "\n".join(lines[:count])
    assert in_few_lines("\n".join(lines[: MOST_MISTAKES + 1])).endswith("\nand 1 more line")
    *told, last = in_few_lines("\n".join(lines)).splitlines()
    assert told == lines[:MOST_MISTAKES]
    assert last == "and 3,980 more lines"
