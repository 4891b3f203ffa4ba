# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon that was killed has left to its successor, and who lives beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from npd6_xdp.system import sysctl
from npd6_xdp.system.sysctl import Memory, Setting, Sysctls

KILLED = """
import os, sys
from pathlib import Path
from npd6_xdp.system.sysctl import Memory
memory = Memory(Path(sys.argv[1]))
memory.write([*memory.left, ["conf/{}/proxy_ndp", 7, sys.argv[2]]])
memory.write([*memory.left, ["conf/{}/proxy_ndp", 7, sys.argv[2]], ["x", 0, "long" * 100]])
memory.write([*memory.left, ["conf/{}/proxy_ndp", 7, sys.argv[2]]])
os.kill(os.getpid(), 9)
"""


def killed(directory: Path, value: str) -> None:
    """One has lived there, and was killed."""
    subprocess.run([sys.executable, "-c", KILLED, directory, value], check=False, env={"PYTHONPATH": str(Path.cwd())})


def test_what_dead_ones_have_left_is_taken_over_once_and_the_oldest_word_counts(tmp_path: Path) -> None:
    killed(tmp_path, "0")
    killed(tmp_path, "1")
    with closing(Memory(tmp_path)) as memory:
        assert memory.left == [["conf/{}/proxy_ndp", 7, "0"], ["conf/{}/proxy_ndp", 7, "1"]]
        assert memory.others == []
        assert Sysctls(memory)._before == {Setting("conf/{}/proxy_ndp", 7): "0"}
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_living_ones_remember_stays_theirs(tmp_path: Path) -> None:
    with closing(Memory(tmp_path)) as first:
        first.write([["conf/all/proxy_ndp", 0, "0"]])
        with closing(Memory(tmp_path)) as second:
            assert (second.left, second.others) == ([], [os.getpid()])


def test_what_is_left_in_another_network_namespace_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "sysctl-1-1-dead").write_text('[["conf/all/proxy_ndp", 0, "1"]]')
    with closing(Memory(tmp_path)) as memory:
        assert (memory.left, memory.others) == ([], [])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "junk", ["", "{", "[]", '"x"', "7", '{"conf/wan0/proxy_ndp": "0"}', "[1]", '[["a"]]', '[["a", "b", "c"]]', "\0"]
)
def test_junk_that_is_left_stops_nobody(tmp_path: Path, junk: str) -> None:
    killed(tmp_path, "0")
    (path,) = tmp_path.iterdir()
    path.write_text(junk)
    with closing(Memory(tmp_path)) as memory:
        Sysctls(memory).put_back()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_had_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with closing(Memory(tmp_path / "file")) as memory:
        memory.write([1])
        assert (memory.left, memory.others) == ([], [])


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A sysctl of the interface with index 1, lo, that is there only 50 ms from now on, as after a rename."""
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    path = tmp_path / "conf/lo/proxy_ndp"

    def appear() -> None:
        path.parent.mkdir(parents=True)
        path.write_text("0")

    timer = threading.Timer(0.05, appear)
    timer.start()
    yield path
    timer.join()


def test_the_sysctls_of_an_interface_that_was_just_renamed_are_waited_for(late: Path, tmp_path: Path) -> None:
    setting = Setting("conf/{}/proxy_ndp", 1)
    with closing(Memory(tmp_path / "memory")) as memory:
        settings = Sysctls(memory)
        settings.set(setting, "1")
        assert late.read_text() == "1"
        settings.put_back()
        assert late.read_text() == "0"


def test_those_that_never_come_hold_nobody_up_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    began = time.monotonic()
    assert Setting("conf/{}/proxy_ndp", 1).settled() == "conf/lo/proxy_ndp"
    assert Setting("conf/{}/proxy_ndp", 2**31 - 1).settled() is None
    assert time.monotonic() - began < 2
