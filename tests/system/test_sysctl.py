# SPDX-License-Identifier: GPL-2.0-or-later
"""What a killed daemon has left to its successor, also while another daemon lives."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from npd6_xdp.system import daemon_files, sysctl
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
    """(0665297 has this very test.)"""
    (tmp_path / "sysctl-1-1-dead").write_text('[["conf/all/proxy_ndp", 0, "1"]]')
    with closing(Memory(tmp_path)) as memory:
        assert (memory.left, memory.others) == ([], [])
    assert len(list(tmp_path.iterdir())) == 1


def test_what_says_nothing_is_removed_whatever_namespace_it_is_of_unless_its_daemon_lives(tmp_path: Path) -> None:
    """Whether that namespace is still there is no matter then; it can't be told from here. (0665297 left all of other
    namespaces where it was.)
    """
    for name, text in (("1-7-dead", "[]"), ("2-7-dead", ""), ("3-7-dead", "[]" + 500 * " "), ("4-7-alive", "[]")):
        (tmp_path / f"sysctl-{name}").write_text(text)
    kept = {"sysctl-5-7-dead", "sysctl-x-7-other", "other", "sysctl-6-7-link", "sysctl-4-7-alive"}
    (tmp_path / "sysctl-5-7-dead").write_text('[["conf/all/proxy_ndp", 0, "1"]]')
    for other in ("sysctl-x-7-other", "other"):
        (tmp_path / other).write_text("[]")
    (tmp_path / "sysctl-6-7-link").symlink_to("other")
    with (tmp_path / "sysctl-4-7-alive").open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        Memory(tmp_path).close()
        assert {path.name for path in tmp_path.iterdir()} == kept
    Memory(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == kept - {"sysctl-4-7-alive"}


def test_what_dead_ones_of_other_namespaces_have_left_is_kept_for_a_week_and_of_the_latest_only(tmp_path: Path) -> None:
    """(0665297 kept all of it for ever.)"""
    text, now = '[["conf/all/proxy_ndp", 0, "0"]]', time.time()
    for number in range(1, 101):
        path = tmp_path / f"sysctl-{number}-7-dead"
        path.write_text(text)
        os.utime(path, (now - number, now - number))
    alive = tmp_path / "sysctl-200-7-alive"
    alive.write_text(text)
    for path in (alive, tmp_path / "sysctl-3-7-dead"):
        os.utime(path, (now - 8 * 86400, now - 8 * 86400))
    with alive.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Memory(tmp_path).close()
        kept = {int(path.name.split("-")[1]) for path in tmp_path.iterdir()}
    assert kept == {*range(1, 66), 200} - {3}


@pytest.mark.parametrize(
    "junk", ["", "{", "[]", '"x"', "7", '{"conf/wan0/proxy_ndp": "0"}', "[1]", '[["a"]]', '[["a", "b", "c"]]', "\0"]
)
def test_junk_that_is_left_stops_nobody(tmp_path: Path, junk: str) -> None:
    """(On 0665297 it held already.)"""
    killed(tmp_path, "0")
    (path,) = tmp_path.iterdir()
    path.write_text(junk)
    with closing(Memory(tmp_path)) as memory:
        Sysctls(memory).put_back()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_had_stops_nobody(tmp_path: Path) -> None:
    """(On 0665297 it held already.)"""
    (tmp_path / "file").touch()
    with closing(Memory(tmp_path / "file")) as memory:
        memory.write([1])
        assert (memory.left, memory.others) == ([], [])


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    return caplog


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for /proc/sys/net/ipv6, and has the sysctls of lo, whose index is 1."""
    found = tmp_path / "sys"
    monkeypatch.setattr(sysctl, "_ROOT", found)
    for key in ("conf/lo/proxy_ndp", "neigh/lo/proxy_delay", "conf/all/proxy_ndp", "conf/lo/forwarding"):
        (found / key).parent.mkdir(parents=True, exist_ok=True)
        (found / key).write_text("as it was")
    return found


ALL = Setting("conf/all/proxy_ndp")
OF_LO = Setting("conf/{}/proxy_ndp", 1)


@pytest.mark.parametrize("setting", [ALL, OF_LO], ids=["all", "of an interface that both use"])
@pytest.mark.parametrize("first_to_end", [0, 1])
@pytest.mark.parametrize("killed_before", [False, True])
def test_a_sysctl_that_two_daemons_need_is_put_back_by_the_last_of_them_to_what_it_was_before_the_first(
    tmp_path: Path, root: Path, setting: Setting, first_to_end: int, killed_before: bool
) -> None:
    path = root / setting.key.format("lo")
    directory = tmp_path / "memory"
    path.write_text("0")
    if killed_before:  # and its successor is the first
        directory.mkdir()
        with closing(Memory(directory)) as memory:
            cookie = memory._prefix
        (directory / f"{cookie}7-dead").write_text(json.dumps([[*setting, "0"]]))
        path.write_text("1")
    memories = [Memory(directory) for _ in range(2)]
    both = [Sysctls(memory) for memory in memories]
    for each in both:
        each.set(setting, "1")
        each.put_back({setting})
        assert path.read_text() == "1"
    both[first_to_end].put_back()
    memories[first_to_end].close()
    assert path.read_text() == "1", "the other needs it"
    other = 1 - first_to_end
    assert both[other].hold() == []
    both[other].put_back()
    memories[other].close()
    assert path.read_text() == "0"
    assert list(directory.iterdir()) == []


def test_a_sysctl_that_was_as_needed_before_the_first_daemon_stays_so_after_the_last(
    tmp_path: Path, root: Path
) -> None:
    path = root / ALL.key
    path.write_text("1")
    memories = [Memory(tmp_path / "memory") for _ in range(2)]
    both = [Sysctls(memory) for memory in memories]
    for each in both:
        each.set(ALL, "1")
    for each, memory in zip(both, memories, strict=True):
        each.put_back()
        memory.close()
        assert path.read_text() == "1"


def test_what_a_daemon_that_was_killed_needed_keeps_no_other_from_putting_it_back(tmp_path: Path, root: Path) -> None:
    path = root / ALL.key
    path.write_text("0")
    first, second = (Memory(tmp_path / "memory") for _ in range(2))
    both = [Sysctls(first), Sysctls(second)]
    for each in both:
        each.set(ALL, "1")
    os.close(first._file)  # as its end does, which takes the lock along
    both[1].put_back()
    second.close()
    assert path.read_text() == "0"
    path.write_text("1")
    with closing(Memory(tmp_path / "memory")) as memory:
        Sysctls(memory).put_back()
    assert path.read_text() == "0"


def test_a_daemon_that_was_stopped_in_its_turn_holds_nobody_up(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_files, "_TURN", 0.05)
    (tmp_path / "memory").mkdir()
    turn = os.open(tmp_path / "memory", os.O_RDONLY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    with closing(Memory(tmp_path / "memory")) as memory:
        sysctls = Sysctls(memory)
        sysctls.set(ALL, "1")
        assert (root / ALL.key).read_text() == "1"
        sysctls.put_back()
        assert (root / ALL.key).read_text() == "as it was"
    os.close(turn)


def own_file(directory: Path) -> Path:
    """What one that was killed has left there."""
    killed(directory, "0")
    (path,) = directory.iterdir()
    return path


@pytest.mark.parametrize(
    "line",
    [
        ["/TMP/evil", 0, "* * * * * root id"],
        ["../evil", 0, "1"],
        ["conf/{}/../../../evil", 1, "1"],
        ["conf/{}/forwarding", 1, "1"],
        ["conf/lo/proxy_ndp", 0, "1"],
        ["conf/{}/proxy_ndp", 0, "1"],
        ["conf/{0.__class__}/proxy_ndp", 1, "1"],
        ["conf/all/proxy_ndp", 1, "1"],
        ["conf/{}/proxy_ndp", True, "1"],
        ["conf/{}/proxy_ndp", "1", "1"],
        ["conf/{}/proxy_ndp", 1 << 40, "1"],
        ["conf/{}/proxy_ndp", 1, "1\n* * * * * root id"],
        ["conf/{}/proxy_ndp", 1, "\u0661"],
        ["conf/{}/proxy_ndp", 1, ""],
        ["conf/{}/proxy_ndp", 1, 1],
        ["conf/{}/proxy_ndp", 1, ["1"]],
        ["conf/{}/proxy_ndp", 1],
        [["conf/{}/proxy_ndp"], 1, "1"],
        {"conf/{}/proxy_ndp": 1},
    ],
    ids=repr,
)
def test_nothing_is_written_that_no_daemon_sets_and_that_is_said(
    tmp_path: Path, root: Path, said: pytest.LogCaptureFixture, line: object
) -> None:
    """Nor anywhere else: /TMP is the test's own directory. (0665297 said it of none, and wrote what some of them ask
    for: other files, another sysctl, a value that is no number.)
    """
    directory = tmp_path / "memory"
    told = json.dumps([line, ["neigh/{}/proxy_delay", 1, "80"]]).replace("/TMP", str(tmp_path))
    own_file(directory).write_text(told)
    before = {path: path.read_text() for path in root.rglob("*") if path.is_file()}
    with closing(Memory(directory)) as memory:
        Sysctls(memory).put_back()
    after = {path: path.read_text() for path in root.rglob("*") if path.is_file()}
    assert after == before | {root / "neigh/lo/proxy_delay": "80"}  # and what is right is put back
    assert {path.name for path in tmp_path.iterdir()} == {"memory", "sys"}
    assert said.text.count("ignored") == 1


def test_no_link_is_followed_and_no_file_of_somebody_else_taken(
    tmp_path: Path, root: Path, said: pytest.LogCaptureFixture
) -> None:
    """(0665297 followed the link, and read each file of that name.)"""
    directory = tmp_path / "memory"
    path = own_file(directory)
    path.write_text('[["neigh/{}/proxy_delay", 1, "80"]]')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text('[["conf/all/proxy_ndp", 0, "1"]]')
    prefix = path.name.rpartition("-")[0]
    (directory / f"{prefix}-link").symlink_to(elsewhere)
    (directory / f"{prefix}-twice").hardlink_to(elsewhere)
    (directory / f"{prefix}-folder").mkdir()
    os.mkfifo(directory / f"{prefix}-pipe")
    (directory / f"{prefix}-foreign").write_text(elsewhere.read_text())
    os.chown(directory / f"{prefix}-foreign", 12345, 12345)
    strange = {entry.name for entry in directory.iterdir()} - {path.name}
    with closing(Memory(directory)) as memory:
        assert memory.left == [["neigh/{}/proxy_delay", 1, "80"]]
        assert memory.others == []
    assert {entry.name for entry in directory.iterdir()} == strange
    assert elsewhere.exists()
    for name in strange:
        assert said.text.count(f"{name}: ignored") == 1


def test_a_directory_that_is_a_link_is_not_gone_into(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    """(0665297 went into it.)"""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with closing(Memory(tmp_path / "link")):
        assert list((tmp_path / "there").iterdir()) == []
    assert "can't remember there what sysctls were" in said.text


@pytest.mark.parametrize("name", ["x-y", "-1-y", "0-y", "1", "99999999999999-y", "1-y-z", "1-.."])
def test_a_locked_file_with_a_name_that_no_daemon_gives_is_ignored(
    tmp_path: Path, name: str, said: pytest.LogCaptureFixture
) -> None:
    """(0665297 stopped at a process id that isn't a number, and took the others for daemons.)"""
    cookie = own_file(tmp_path).name.split("-")[1]
    strange = tmp_path / f"sysctl-{cookie}-{name}"
    with strange.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with closing(Memory(tmp_path)) as memory:
            assert memory.others == []
    assert list(tmp_path.iterdir()) == [strange]
    assert f"{strange.name}: ignored" in said.text


def test_an_interface_that_is_called_all_has_no_sysctls_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_indextoname", lambda _: "all")
    assert Setting("conf/{}/proxy_ndp", 7).path() is None


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sysctl of the interface with index 1, lo, that is there only at the fourth look, as after a rename."""
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    path = tmp_path / "conf/lo/proxy_ndp"
    looks = count(1)

    def appear(_: float) -> None:
        if next(looks) == 3:
            path.parent.mkdir(parents=True)
            path.write_text("0")

    monkeypatch.setattr(time, "sleep", appear)
    return path


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
    assert time.monotonic() - began < 5


def test_what_somebody_changes_of_an_interface_whose_name_is_no_text_is_set_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysctl, "_ROOT", tmp_path)
    monkeypatch.setattr(socket, "if_indextoname", lambda _: os.fsdecode(b"lan\xff"))
    path = tmp_path / "conf" / os.fsdecode(b"lan\xff") / "proxy_ndp"
    path.parent.mkdir(parents=True)
    path.write_text("0")
    with closing(Memory(tmp_path / "memory")) as memory:
        sysctls = Sysctls(memory)
        sysctls.set(Setting("conf/{}/proxy_ndp", 7), "1")
        assert path.read_text() == "1"
        path.write_text("0")
        assert sysctls.hold() == [r"net.ipv6.conf.lan\xff.proxy_ndp"]
        assert path.read_text() == "1"
