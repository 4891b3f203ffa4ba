# SPDX-License-Identifier: GPL-2.0-or-later
"""A pair of edges with a real keepalived: one dies, the other one takes over, and gives back to the first."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from npd6_xdp import cli
from npd6_xdp.lab import failover
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.keepalived import Keepalived
from npd6_xdp.lab.pair import EDGES, MACS, Edge, Pair, host
from npd6_xdp.lab.sightings import Seen
from npd6_xdp.lab.upstream import ASKED, Upstream
from tests.netns.test_lab import left_of, start
from tests.netns.verb import verb
from tests.netns.warm import warm
from tests.netns.wire import until

pytestmark = pytest.mark.needs_table  # the upstream's kernel has the hosts in it

HOSTS = [host(number) for number in range(8)]
BY_KERNEL = 4


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as found:
        yield found


class Scene:
    """Both edges at work, and the upstream's pings."""

    def __init__(self, pair: Pair, stack: ExitStack) -> None:
        self.pair = pair
        self.stack = stack
        self.daemons: dict[Edge, RunningDaemon] = {}
        self.keepalived = {edge: Keepalived(pair, edge, "own") for edge in EDGES}
        for edge in EDGES:
            self.start(edge)
        self.upstream = stack.enter_context(Upstream(pair, HOSTS, BY_KERNEL))

    def start(self, edge: Edge) -> None:
        running = warm(self.pair, failover.config("own", "route"), namespace=edge)
        self.daemons[edge] = self.stack.enter_context(running)
        self.keepalived[edge].start()

    def answers(self, edge: Edge) -> bool:
        """Whether an edge comes to answer alone, and the hosts to be reachable."""

        def is_so() -> bool:
            last = self.upstream.seen.answers[-50:]
            return len(last) == 50 and {one.edge for one in last} == {edge}

        assert until(is_so)
        seen = self.upstream.seen
        known = len(seen.echoes)
        return until(lambda: {echo.target for echo in seen.echoes[known:]} == {*HOSTS})


def test_the_second_edge_takes_over_from_one_that_dies_and_gives_back_to_it(pair: Pair) -> None:
    with ExitStack() as stack:
        scene = Scene(pair, stack)
        upstream = scene.upstream
        assert scene.answers("edge")
        assert until(lambda: upstream.cached() == {MACS["edge"]: len(HOSTS)})
        upstream.anew()
        for side in ("wan", "lan"):
            pair.cut("edge", side)
        pair.kill_all("edge")
        assert scene.answers("second")

        # nobody asked: the cache, the kernel's as well, took what was announced
        def announced() -> list[Seen]:
            """The other one's: of the first one's, the last may have come before it was cut off."""
            return [one for one in upstream.seen.announcements if one.edge == "second"]

        assert until(lambda: {one.target for one in announced()} == {*HOSTS, ASKED})
        assert {one.mac for one in announced()} == {MACS["second"]}
        assert until(lambda: upstream.cached() == {MACS["second"]: len(HOSTS)})
        assert "on standby" not in verb(scene.daemons["second"], "status").stdout

        # as after a boot; keepalived takes the address that is left of its predecessor away itself
        for side in ("wan", "lan"):
            pair.mend("edge", side)
        scene.start("edge")
        upstream.anew()
        assert scene.answers("edge")
        assert until(lambda: "on standby" in verb(scene.daemons["second"], "status").stdout)
        for edge in EDGES:
            print(f"--- {edge}\n{scene.keepalived[edge].log}\n{scene.daemons[edge].log}")


def processes_of(pid: int) -> list[str]:
    """The command lines that name the directory of a process's topology."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if f"/run/npd6-{pid}-" in line:
            found.append(line)
    return found


def test_a_signal_ends_it_and_neither_keepalived_nor_a_file_is_left() -> None:
    with start("-m", "npd6_xdp", "lab", "--failover", "--hosts", "4") as process:
        try:
            assert process.stdout
            for line in process.stdout:
                if "npd6-xdp status" in line:  # both edges are at work
                    break
            assert any("keepalived" in line for line in processes_of(process.pid))
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=600)
        finally:
            process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "npd6-xdp lab: stopped by SIGTERM; the namespaces are removed\n"
    assert left_of(process) == []
    assert processes_of(process.pid) == []


def test_an_edge_that_never_answers_fails_the_lab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(failover, "_PATIENCE", 3.0)
    monkeypatch.setattr(failover, "CONFIG", failover.CONFIG.replace('"{method}"', '"ignore"'))
    assert failover.run(4, kinds=["own"]) == 1
    told = capsys.readouterr().out
    assert "FAILED  the lab goes on: expected no error, seen lab: waited in vain until" in told
    assert "edge: npd6-xdp's log" in told
    assert not [*Path("/run").glob(f"npd6-{os.getpid()}-*")]


def test_without_keepalived_it_names_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "keepalived" else which(tool))
    assert cli.main(["lab", "--failover"]) == 1
    said = capsys.readouterr()
    assert said.err == "npd6-xdp: lab: keepalived not found; install the package: apt install keepalived\n"
    assert said.out == ""


def test_a_number_of_hosts_is_refused_without_two_edges(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "--hosts", "7"]) == 2
    assert capsys.readouterr().err == "npd6-xdp: --hosts: only the lab with --failover has several\n"


@pytest.mark.parametrize("hosts", ["0", "10001", "100000", "many"])
def test_a_number_of_hosts_that_it_has_no_use_for_is_refused_by_one_message(
    hosts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab", "--failover", "--hosts", hosts])
    assert ended.value.code == 2
    assert f"{hosts!r} is not a number from 1 to 10000; npd6-xdp lab --help says" in capsys.readouterr().err
