# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration file as a hostile input: whatever stands at its place, answers go on, and the end is never far."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from npd6_xdp.core.errors import MOST_MISTAKES, MachineError
from npd6_xdp.core.warnings import MOST_SAID
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.control import ask
from tests.netns.hostile import HOSTILE, MANY, RULE, named_pipe, put
from tests.netns.test_under_way import state
from tests.netns.verb import verb
from tests.netns.wire import Asker, Wire, configuration, says, until

Start = Callable[..., RunningDaemon]

TARGET, OTHER = "2001:db8:1::42", "2001:db8:2::42"
COMMENTS = "# a line that takes a while to pass over, if there are many such\n" * 600_000
"""What takes a second or two to read, and comes to nothing."""
SOON = 60.0  # seconds in which a daemon ends on a machine that is busy; it takes a tenth, where it waits for nobody


@pytest.fixture
def running(topology: Topology, daemon: Start) -> RunningDaemon:
    return daemon(f'[daemon]\nlog_level = "debug"\n{configuration(RULE)}')


def refused(running: RunningDaemon) -> str:
    """Why a reload failed."""
    with pytest.raises(MachineError) as caught:
        ask(running.control, {"verb": "reload"})
    head, _, why = str(caught.value).partition(str(running.config_file))
    assert head == "the old configuration stays: "
    return re.sub(r"^(:\d+:\d+)?: ", "", why)


def test_whatever_stands_in_the_files_place_is_refused_in_one_line_and_the_old_configuration_lives_on(
    topology: Topology, running: RunningDaemon
) -> None:
    """(0665297 read whatever was there, in its loop: the named pipe and the terminal held that up, the device had it
    killed, the key took a minute. All else it refused in one line, as now or in other words; of many mistakes it said
    each.)
    """
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        for name, (what, words) in HOSTILE.items():
            put(running, what)
            why = refused(running)
            assert why.startswith(words) or words in why, name
            assert len(why.splitlines()) == 1, name
            assert asker.answered(TARGET, 3.0), name
        stays = "reload: the old configuration stays"
        before = len(HOSTILE)
        assert says(running, stays, before), running.log

        for lines, kind, count in MANY:
            running.config_file.unlink(missing_ok=True)
            running.config_file.write_text(f'[[interface]]\nname = "wan0"\n{lines}')
            logged = len(running.log)
            *told, last = refused(running).splitlines()
            assert len(told) == MOST_MISTAKES
            assert kind in told[0]
            assert last.endswith(f": and {count - MOST_MISTAKES:,} more mistakes; mend these first")
            assert len(running.log) - logged < 10_000
        before += len(MANY)

        put(running, named_pipe)
        running.process.send_signal(signal.SIGHUP)
        assert until(lambda: running.log.count("reload: the old configuration stays") == before + 1)
        assert asker.answered(TARGET, 3.0)

        put(running, lambda path: None)
        running.write(configuration(RULE, "2001:db8:2::/64 static"))
        good = running.config_file.read_bytes()
        running.config_file.write_bytes(b"\xef\xbb\xbf" + good)  # as some editors save it
        assert ask(running.control, {"verb": "reload"})["rules"] == 2
        assert asker.answered(OTHER, 3.0)

        logged = len(running.log)
        running.write(configuration(RULE, *(f"2001:db8:3:{n:x}::/64 neighbour via=absent{n}" for n in range(1000))))
        *told, last = ask(running.control, {"verb": "reload"})["warnings"]
        assert len(told) == MOST_SAID
        assert last.startswith("and 9"), "and how many more: what is taken in may have as much to say"
        assert last.endswith("more warnings: npd6-xdp status --json has all")
        assert len(running.log) - logged < 10_000
        assert len(ask(running.control, {"verb": "status"})["warnings"]) >= 1000
    put(running, named_pipe)
    running.process.send_signal(signal.SIGHUP)
    assert ends(running)


def ends(running: RunningDaemon) -> bool:
    """Whether it does, soon, by SIGTERM."""
    running.process.terminate()
    return running.process.wait(SOON) == 0


def beside(running: RunningDaemon) -> list[int]:
    """The processes that the daemon has started."""
    pid = running.process.pid
    with suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@contextmanager
def held(running: RunningDaemon) -> Iterator[int]:
    """While a reading can't go on: the process that reads. It is let go at the end, if it lives."""
    over = running.log.count
    for _ in range(20):
        before = over("reload: read in")
        running.process.send_signal(signal.SIGHUP)
        assert until(lambda before=before: beside(running) or over("reload: read in") > before)  # type: ignore[misc, arg-type]
        for child in beside(running):
            assert until(lambda child=child: settled(child))  # type: ignore[misc]
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGSTOP)
                if until(lambda child=child: state(child) == "T", 1.0):  # type: ignore[misc]
                    try:
                        yield child
                    finally:
                        with suppress(ProcessLookupError):
                            os.kill(child, signal.SIGCONT)
                    return
    pytest.fail("no reading was slow enough to be held")


def settled(pid: int) -> bool:
    """Whether it has made ready to read, or is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    return True


def test_while_a_configuration_is_read_all_else_goes_on_and_who_is_killed_at_it_has_changed_nothing(
    topology: Topology, running: RunningDaemon
) -> None:
    """(0665297 read it in its loop, so nothing of Python's went on meanwhile, and no process could be killed at it.)"""

    def told() -> None:
        answers.append(ask(running.control, {"verb": "reload"}))

    answers: list[dict[str, Any]] = []
    askers = [threading.Thread(target=told) for _ in range(4)]
    running.write(COMMENTS + configuration(RULE))
    with Wire(topology) as wire:
        asker = Asker(wire, running)
        with held(running) as child:
            done = running.log.count("reload: the new configuration is in use")
            assert asker.answered(TARGET, 3.0)
            assert ask(running.control, {"verb": "status"})["interfaces"]
            assert running.metrics()
            holds = {str(each.readlink()) for each in Path(f"/proc/{child}/fd").iterdir()}
            assert not any("bpf" in each or "socket" in each for each in holds), "it would keep them after a kill"
            running.write(configuration(RULE, "2001:db8:2::/64 static"))
            for each in askers:
                each.start()
            for _ in range(100):
                running.process.send_signal(signal.SIGHUP)
            assert asker.answered(TARGET, 3.0)
            assert not answers
        for each in askers:
            each.join(60)
        assert [answer["rules"] for answer in answers] == [2] * 4
        assert asker.answered(OTHER, 3.0)
        assert running.log.count("reload: the new configuration is in use") <= done + 2
        assert until(lambda: not beside(running))

        running.write(COMMENTS + configuration(RULE))
        with held(running) as child:
            assert settled(child), "the kernel is to take it for its memory, not the daemon"
            os.kill(child, signal.SIGKILL)
            assert until(lambda: "reload: it takes more memory to read than there is, or so it seems" in running.log)
        assert until(lambda: not beside(running))
        running.write(configuration(RULE))
        assert ask(running.control, {"verb": "reload"})["rules"] == 1
        assert asker.answered(TARGET, 3.0)


def test_the_end_doesnt_wait_for_a_reading_and_none_outlives_the_daemon(running: RunningDaemon) -> None:
    """(0665297 started no process for it, and ended when it had read.)"""
    running.write(COMMENTS + configuration(RULE))
    with socket.socket(socket.AF_UNIX) as asker, held(running) as child:
        asker.settimeout(SOON)
        asker.connect(str(running.control))
        asker.sendall(b'{"verb": "reload"}\n')
        running.settle()  # what came before this has been heard
        assert ends(running)
        assert until(lambda: state(child) in ("", "Z"))
        said = b"".join(iter(lambda: asker.recv(4096), b""))
    assert json.loads(said) == {"error": "npd6-xdp is ending; the reload was given up"}


def test_a_file_is_read_where_whoever_started_the_daemon_ignores_the_ends_of_children(
    topology: Topology, daemon: Start
) -> None:
    """(0665297 started no process for it, so it left that as it was, and read: what is asserted of it is new.)"""
    program = "import signal, npd6_xdp.cli; signal.signal(signal.SIGCHLD, signal.SIG_IGN); npd6_xdp.cli.main()"
    running = daemon(configuration(), program=(sys.executable, "-c", program))
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    (ignored,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:")]
    assert not ignored >> (signal.SIGCHLD - 1) & 1, "that is inherited, and its children couldn't be waited for"
    assert verb(running, "reload").returncode == 0
