# SPDX-License-Identifier: GPL-2.0-or-later
"""Daemons of several users see each other by their files, and nobody is taken in by a file that is no daemon's."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from npd6_xdp.system import sysctl
from npd6_xdp.system.sysctl import ALL_PROXY_NDP, PROXY_NDP, Memory, Setting, Sysctls

USER, STRANGER = 4711, 4712
ALL, OF_LO = Setting(ALL_PROXY_NDP), Setting(PROXY_NDP, 1)
KILLED = """
import os, sys
from pathlib import Path
from npd6_xdp.system.sysctl import Memory
Memory(Path(sys.argv[1])).write([["conf/all/proxy_ndp", 0, "0"]])
os.kill(os.getpid(), 9)
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to be several users")


@contextmanager
def being(user: int, group: int | None = None) -> Iterator[None]:
    """This process is that user's for a while, without root's privileges."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(user if group is None else group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def directory() -> Iterator[Path]:
    """As RuntimeDirectory= makes it; those above it are open to all."""
    found = Path(tempfile.mkdtemp(prefix="npd6-xdp-", dir="/tmp"))
    found.chmod(0o750)
    os.chown(found, USER, USER)
    yield found
    shutil.rmtree(found)


@pytest.fixture(autouse=True)
def root(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands in for /proc/sys/net/ipv6, and has the sysctls of lo, which all may write here."""
    found = Path(tempfile.mkdtemp(prefix="npd6-xdp-", dir="/tmp"))
    monkeypatch.setattr(sysctl, "_ROOT", found)
    for key in ("conf/lo/proxy_ndp", "conf/all/proxy_ndp"):
        (found / key).parent.mkdir(parents=True, exist_ok=True)
        (found / key).write_text("0")
        (found / key).chmod(0o666)
    for place in (found, *found.rglob("*")):
        if place.is_dir():
            place.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("npd6-xdp"), "propagate", True)
    return caplog


def remains(directory: Path, pid: int, owner: int = 0) -> Path:
    """A file that nobody but its owner may read, by the name of a daemon with this process."""
    with closing(Memory(directory)) as memory:
        path = directory / f"{memory._prefix}{pid}-older"
    path.touch(0o600)
    path.write_text(json.dumps([[*ALL, "0"], ["host routes"]]))
    os.chown(path, owner, owner)
    return path


@pytest.fixture
def dead() -> int:
    """The id of a process that has gone."""
    with subprocess.Popen(("true",)) as gone:
        pass
    return gone.pid


@pytest.mark.parametrize("users", [(0, USER), (USER, 0)], ids=["root first", "the service first"])
@pytest.mark.parametrize("first_to_end", [0, 1])
def test_daemons_of_root_and_of_the_services_user_see_each_other_and_the_last_puts_back_what_both_need(
    directory: Path, root: Path, users: tuple[int, int], first_to_end: int, said: pytest.LogCaptureFixture
) -> None:
    memories, both = [], []
    for user in users:
        with being(user):
            memories.append(Memory(directory))
            both.append(Sysctls(memories[-1]))
            both[-1].set(ALL, "1")
    assert memories[1].others == [os.getpid()]
    for number in (first_to_end, 1 - first_to_end):
        assert (root / ALL.key).read_text() == "1", "one needs it"
        with being(users[number]):
            assert memories[number].look_for_others() is (number == first_to_end)
            both[number].put_back()
            memories[number].close()
    assert (root / ALL.key).read_text() == "0"
    assert ([*directory.iterdir()], said.text) == ([], "")


def test_what_roots_daemon_has_left_the_services_takes_over_and_the_other_way_round(directory: Path) -> None:
    tree = str(Path.cwd())
    for killed, successor in ((0, USER), (0, 0)):
        words = (sys.executable, "-c", KILLED, directory)
        subprocess.run(words, check=False, user=killed, env={"PYTHONPATH": tree})
        with being(successor), closing(Memory(directory)) as memory:
            assert (memory.left, memory.others) == ([[*ALL, "0"]], [])
        assert [*directory.iterdir()] == []


def test_a_file_is_the_directorys_owners_and_nobody_elses_who_could_lock_it_for_a_dead_one(directory: Path) -> None:
    with closing(Memory(directory)):
        (path,) = directory.iterdir()
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (USER, USER, 0o600)


def test_a_daemon_whose_file_cant_be_read_lives_as_long_as_its_process_and_has_the_word_on_what_all_share(
    directory: Path, root: Path, said: pytest.LogCaptureFixture
) -> None:
    path = remains(directory, os.getppid())
    with being(USER), closing(Memory(directory)) as memory:
        assert memory.others == [os.getppid()]
        assert memory.look_for_others()
        sysctls = Sysctls(memory)
        sysctls.set(ALL, "1")
        sysctls.set(OF_LO, "1")
        sysctls.put_back()
    assert ((root / ALL.key).read_text(), (root / "conf/lo/proxy_ndp").read_text()) == ("1", "0")
    assert said.text == ""
    assert path.exists()


def test_a_file_that_cant_be_read_of_a_daemon_that_has_gone_is_left_to_root_and_that_is_said(
    directory: Path, dead: int, said: pytest.LogCaptureFixture
) -> None:
    for pid in (dead, os.getpid(), 9999999999):
        path = remains(directory, pid)
        with being(USER), closing(Memory(directory)) as memory:
            assert (memory.others, memory.left) == ([], [])
            assert not memory.look_for_others()
        assert (
            said.text.count(f"{path.name}: can't be read, and its daemon has gone: run `npd6-xdp clean` as root") == 1
        )
        with closing(Memory(directory)) as memory:
            assert (memory.left, memory.left_routes) == ([[*ALL, "0"]], True)
        assert [*directory.iterdir()] == []


def test_nothing_that_cant_be_read_makes_a_daemon_of_what_is_none(
    directory: Path, said: pytest.LogCaptureFixture
) -> None:
    secret = remains(directory, os.getppid()).rename(directory / "secret")
    stem = str(remains(directory, os.getppid(), STRANGER)).removesuffix("older")
    os.link(secret, f"{stem}twice")
    Path(f"{stem}link").symlink_to(secret)
    os.mkfifo(f"{stem}pipe", 0o600)
    Path(f"{stem}folder").mkdir(0o700)
    os.close(os.open(f"{stem}a-b", os.O_CREAT, 0o600))
    with being(USER), closing(Memory(directory)) as memory:
        assert memory.others == []
    for name in ("older", "twice", "link", "pipe", "folder", "a-b"):
        assert f"-{name}: ignored, as it is no file of a daemon's" in said.text


def test_who_may_not_write_there_sees_the_others_and_takes_nothing_over(
    directory: Path, dead: int, said: pytest.LogCaptureFixture
) -> None:
    theirs = remains(directory, dead, STRANGER)
    remains(directory, os.getppid(), USER)
    with being(STRANGER, USER), closing(Memory(directory)) as memory:
        assert (memory.others, memory.left, memory.left_routes) == ([os.getppid()], [], False)
        assert memory.look_for_others()
    assert theirs.exists()
    assert "can't remember there what sysctls were: Permission denied" in said.text
