# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts in a row that don't get ready, and when the process before this one ended: what /run says of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from npd6_xdp.system.ended import seconds_since_end
from npd6_xdp.system.starts import MOST, Starts


def starts(directory: Path) -> Starts:
    return Starts({"RUNTIME_DIRECTORY": str(directory)})


def test_each_start_counts_those_before_it_that_didnt_get_ready(tmp_path: Path) -> None:
    assert [starts(tmp_path).begin() for _ in range(MOST + 2)] == [0, 1, 2, 3, 4]


def test_one_that_is_ready_ends_the_row(tmp_path: Path) -> None:
    for _ in range(MOST):
        last = starts(tmp_path)
        last.begin()
    last.ready()
    assert starts(tmp_path).begin() == 0
    assert starts(tmp_path).begin() == 1


@pytest.mark.parametrize("text", ["", "x", "-1", "²", "3 and more", "\n"])
def test_a_count_that_is_none_is_0(tmp_path: Path, text: str) -> None:
    (tmp_path / "starts").write_text(text)
    assert starts(tmp_path).begin() == 0
    assert starts(tmp_path).begin() == 1


def test_bytes_are_no_count(tmp_path: Path) -> None:
    (tmp_path / "starts").write_bytes(b"\xff\xfe")
    assert starts(tmp_path).begin() == 0


def test_a_count_stays_in_bounds(tmp_path: Path) -> None:
    (tmp_path / "starts").write_text("9999\n")
    assert [starts(tmp_path).begin() for _ in range(2)] == [9999, 9999]


def test_where_there_is_no_directory_nothing_is_counted(tmp_path: Path) -> None:
    nowhere = Starts({})
    assert [nowhere.begin() for _ in range(MOST + 1)] == [0] * (MOST + 1)
    nowhere.ready()
    assert starts(tmp_path / "gone").begin() == 0
    assert [*tmp_path.iterdir()] == []


def test_the_time_since_the_process_before_ended_is_that_of_the_units_file(tmp_path: Path) -> None:
    file = tmp_path / "next"
    began = uptime()
    file.write_text(f"start {began - 2:.2f}\n")
    assert 1.98 <= seconds_since_end({"ENDED": str(file)}) <= 2.02 + uptime() - began


@pytest.mark.parametrize(
    "text", [None, "", "start\n", "start soon\n", "start -4\n", "start 1e400\n", "start 99999999999\n"]
)
def test_a_time_that_isnt_known_is_0(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "next"
    if text is not None:
        file.write_text(text)
    assert seconds_since_end({"ENDED": str(file)}) == 0.0


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])
