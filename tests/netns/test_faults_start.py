# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines on which the daemon can't start, or not as usual: one line says what, where, what to do; nothing stays."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import PROGRAM, RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from tests.netns.service import left
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, question

Start = Callable[..., RunningDaemon]

RUN = "/run/npd6-xdp"
RULES = ("2001:db8:1::/64 static", "2001:db8:2::/64 kernel")
NO_SYS = (
    "can't start: /sys/devices/system/cpu/possible: No such file or directory: mount /sys, which it can't do without"
)
NO_CONTROL = f"daemon.control: can't listen on {RUN}/control.sock"
GONE = 'cd "$(mktemp -d)" && rmdir "$PWD"'


def in_its_own_files(script: str) -> tuple[str, ...]:
    """The program, in mounts of its own that a script has changed."""
    return ("unshare", "--mount", "bash", "-ec", f'mount --make-rprivate /; {script}; exec "$@"', "-", *PROGRAM)


def with_processes(count: int) -> tuple[str, ...]:
    """The program as a user who may have so many processes and threads, and is root in all else (RLIMIT_NPROC)."""
    bounds = "--bounding-set=-sys_admin,-sys_resource"  # which exempt from the limit
    user = 1_000_000 + 4 * os.getpid() + count  # nobody else's: his processes count wherever they are
    return ("prlimit", f"--nproc={count}", "setpriv", f"--ruid={user}", bounds, *PROGRAM)


NO_THREAD = "can't start a thread: raise TasksMax= (the cgroup's pids.max), or LimitNPROC= (ulimit -u)"
REFUSED = {
    "no /sys": (
        in_its_own_files("mount -t tmpfs tmpfs /sys"),
        NO_SYS,
    ),
    "no /proc": (
        in_its_own_files("mount -t tmpfs tmpfs /proc"),
        "can't start: /proc/self/ns/net: No such file or directory: mount /proc, which it can't do without",
    ),
    "neither": (
        in_its_own_files("mount -t tmpfs tmpfs /sys; mount -t tmpfs tmpfs /proc"),
        NO_SYS,
    ),
    "one process": (
        with_processes(1),
        f"the log: {NO_THREAD}",
    ),
    "two": (
        with_processes(2),
        f"metrics.listen: {NO_THREAD}",
    ),
    "/run read-only": (
        in_its_own_files(f"mkdir -p {RUN}; mount -t tmpfs -o ro tmpfs {RUN}"),
        f"{NO_CONTROL}: Read-only file system; choose another path",
    ),
    "/run without inodes": (
        in_its_own_files(f"mkdir -p {RUN}; mount -t tmpfs -o nr_inodes=1 tmpfs {RUN}"),
        f"{NO_CONTROL}: No space left on device: free some space there; choose another path",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_start_cannot_do_without_is_said_in_one_line_and_nothing_stays(
    topology: Topology, daemon: Start, case: str
) -> None:
    """(On 0665297 it held already for what is read-only.)"""
    program, words = REFUSED[case]
    text = configuration(*RULES)
    if "/run" in words:
        text = f'[daemon]\ncontrol = "{RUN}/control.sock"\n{text}'
    before = left(topology)
    with pytest.raises(StartError) as caught:
        daemon(text, program=program)
    assert "exit status 1" in str(caught.value), caught.value.log
    *others, line = caught.value.log.splitlines()
    assert line == f"npd6-xdp: {words}"
    assert all(other.startswith("npd6-xdp: ") for other in others), "no traceback"
    assert left(topology) == before


def test_a_file_by_its_whole_path_is_run_from_a_working_directory_that_is_gone(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration(*RULES), program=("bash", "-c", f'{GONE}; exec "$@"', "-", *PROGRAM))
    with Wire(topology) as wire:
        assert wire.ask(question("2001:db8:1::42")) is not None
    assert verb(running, "reload").returncode == 0
    assert running.stop() == 0


def test_a_relative_path_from_a_working_directory_that_is_gone_is_said_to_lead_nowhere(topology: Topology) -> None:
    words = f'{GONE}; exec "$@" run --config npd6-xdp.toml'
    done = topology.run("edge", "bash", "-c", words, "-", *PROGRAM)
    assert (done.returncode, done.stderr) == (
        2,
        "npd6-xdp: --config npd6-xdp.toml: the working directory is gone; name the file from / on\n",
    )


def test_with_no_space_for_its_memory_it_starts_says_so_once_and_leaves_nothing(
    topology: Topology, daemon: Start
) -> None:
    fill = f"mkdir -p {RUN}; mount -t tmpfs -o size=4k tmpfs {RUN}; head -c 9000 /dev/zero > {RUN}/full || true"
    running = daemon(configuration(*RULES), program=in_its_own_files(f"({fill}) 2>/dev/null"))
    with Wire(topology) as wire:
        for n in range(3):
            assert wire.ask(question(f"2001:db8:2::{n}")) is not None
    assert verb(running, "reload").returncode == 0
    (line,) = (line for line in running.log.splitlines() if "warning" in line)
    assert line.endswith(": can't remember what sysctls were: No space left on device: free some space there")
    files = Path(f"/proc/{running.process.pid}/root{RUN}")
    assert [file.name for file in files.iterdir() if file.name != "full"] != []
    with ExitStack() as stack:
        view = stack.enter_context(Path(f"/proc/{running.process.pid}/ns/mnt").open())  # it outlives the process
        assert running.stop() == 0
        listed = topology.run("edge", "nsenter", f"--mount=/proc/{os.getpid()}/fd/{view.fileno()}", "ls", RUN)
    assert "Traceback" not in running.log
    assert listed.stdout.split() == ["full"]


def test_a_control_socket_whose_owner_takes_no_connection_ends_the_start_in_one_line(
    topology: Topology, daemon: Start
) -> None:
    path = topology.directory / "busy.sock"
    with ExitStack() as stack:
        busy = stack.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with suppress(BlockingIOError):  # the backlog is full
                waiting.connect(str(path))
        with pytest.raises(StartError) as caught:
            daemon(f'[daemon]\ncontrol = "{path}"\n{configuration()}')
    assert "exit status 1" in str(caught.value)
    assert caught.value.log == (
        f"npd6-xdp: daemon.control: another npd6-xdp is at {path}, and takes no connection; stop it"
        f" (fuser {path} says which process it is), or give this one another path\n"
    )
    assert path.exists()


GROUPED = """\
mount --make-rprivate /
if grep -Eq "[:,]$2[:,]" /proc/self/cgroup; then
    mount -t tmpfs tmpfs /sys/fs/cgroup
    mkdir /sys/fs/cgroup/$2
    mount -t cgroup -o $2 cgroup /sys/fs/cgroup/$2
    group=/sys/fs/cgroup/$2/$1 file=$3
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    echo +$2 > /sys/fs/cgroup/cgroup.subtree_control
    group=/sys/fs/cgroup/$1 file=$2.max
fi
shift 3
"""
"""The files of the hierarchy that limits memory or processes here, in either version, and a group of our own in it."""
IN_MEMORY = """\
echo "$1" > "$group/$file"
echo $$ > "$group/cgroup.procs"
sed 's/^SwapFree:.*/SwapFree: 0 kB/' /proc/meminfo > "$2"
mount --bind "$2" /proc/meminfo
shift 2
exec "$@"
"""
WITH_PROCESSES = """\
echo "$1" > "$group/$file"
echo $$ > "$group/cgroup.procs"
shift
exec "$@"
"""
InAGroup = Callable[[int], tuple[str, ...]]


@contextmanager
def group(topology: Topology, controller: str, limit: str) -> Iterator[tuple[str, ...]]:
    """A control group of our own: what to put before a script that is run in it; `limit` is its file in version 1."""
    words = (f"{topology.label}-{controller}", controller, limit)

    def grouped(script: str) -> subprocess.CompletedProcess[str]:
        return topology.run("edge", "timeout", "60", "bash", "-ec", GROUPED + script, "-", *words)

    if (done := grouped('mkdir "$group"')).returncode:
        pytest.skip(f"this machine lets nobody limit {controller}: {done.stderr}")
    yield words
    assert grouped('until rmdir "$group"; do sleep 0.05; done').returncode == 0


@pytest.fixture
def in_a_group(topology: Topology) -> Iterator[InAGroup]:
    """The program, in a control group of its own that has so much memory (bytes), and no swap."""
    meminfo = str(topology.directory / "meminfo")
    with group(topology, "memory", "memory.limit_in_bytes") as words:
        yield lambda limit: ("bash", "-ec", GROUPED + IN_MEMORY, "-", *words, str(limit), meminfo, *PROGRAM)


@pytest.fixture
def with_so_many(topology: Topology) -> Iterator[InAGroup]:
    """The program, in a control group of its own that may have so many processes and threads."""
    with group(topology, "pids", "pids.max") as words:
        yield lambda count: ("bash", "-ec", GROUPED + WITH_PROCESSES, "-", *words, str(count), *PROGRAM)


@pytest.mark.parametrize(("count", "what"), [(1, "the log"), (2, "metrics.listen")])
def test_a_control_group_that_has_no_process_left_for_a_thread_ends_the_start_in_one_line(
    topology: Topology, with_so_many: InAGroup, daemon: Start, count: int, what: str
) -> None:
    """By its pids.max, which bounds root as well. (On 0665297 one was a traceback, and two were enough.)"""
    before = left(topology)
    with pytest.raises(StartError) as caught:
        daemon(configuration(*RULES), program=with_so_many(count))
    assert "exit status 1" in str(caught.value)
    assert caught.value.log == f"npd6-xdp: {what}: {NO_THREAD}\n"
    assert left(topology) == before


@pytest.mark.parametrize("kept", [False, True])
def test_with_100_megabytes_a_reload_to_ten_thousand_rules_kills_nobody(
    topology: Topology, daemon: Start, in_a_group: InAGroup, *, kept: bool
) -> None:
    """It is refused where the program has to be compiled again, and fits where that was kept. (0665297 was killed.)"""
    cache = topology.directory / "cache"
    cache.mkdir()
    with suppress(FileNotFoundError):  # no test before has kept any
        shutil.copytree(os.environ["CACHE_DIRECTORY"], cache, dirs_exist_ok=True)
    environment = {"CACHE_DIRECTORY": str(cache)}
    assert daemon(configuration(*RULES), environment=environment).stop() == 0  # whose program is kept now, surely
    running = daemon(configuration(*RULES), program=in_a_group(100_000_000), environment=environment)
    if not kept:
        shutil.rmtree(cache)
    running.write(configuration(*(f"2001:db8:{3 + n // 5000:x}:{n:x}::/64 static" for n in range(10_000))))
    done = verb(running, "reload")
    with Wire(topology) as wire:
        if kept:
            assert (done.returncode, done.stderr) == (0, "")
            assert wire.ask(question("2001:db8:4:1fff::42")) is not None
        else:
            assert done.returncode == 1
            assert re.fullmatch(
                r"npd6-xdp: the old configuration stays: loading 10000 rules beside those that are in use takes some"
                r" \d+ MB of memory, and of the 100 MB that /sys/fs/cgroup/\S+ allows \d+ are left: allow \d+ at the"
                r" least \(MemoryMax= of the service\)\n",
                done.stderr,
            )
            assert wire.ask(question("2001:db8:1::42")) is not None
    assert running.stop() == 0


def test_a_start_that_the_control_group_has_no_memory_for_ends_in_one_line(daemon: Start, in_a_group: InAGroup) -> None:
    """(0665297 looked at no limit, and was killed.)"""
    with pytest.raises(StartError) as caught:
        daemon(configuration(*RULES), program=in_a_group(70_000_000), environment={"CACHE_DIRECTORY": os.devnull})
    assert "exit status 1" in str(caught.value)
    (line,) = caught.value.log.splitlines()
    assert re.match(
        r"npd6-xdp: loading 2 rules takes some \d+ MB of memory, and of the 70 MB that /sys/fs/cgroup/", line
    )
