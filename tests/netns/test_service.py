# SPDX-License-Identifier: GPL-2.0-or-later
"""The service: its unit, the privileges that it gives, and what the service manager hears."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from tests.netns.service import (
    OTHER,
    SYSCTLS,
    SYSTEMD,
    UNIT,
    Hosted,
    UnderSetpriv,
    UnderSystemd,
    capabilities,
    left,
    mask,
    unit,
)
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, paused, question, until
from tests.netns.xdp_links import handed_over

Start = Callable[..., RunningDaemon]

RULES = (
    "2001:db8:1::/64 neighbour via=lan0 host_routes=true",
    "2001:db8:2::/64 kernel",
    "2001:db8:3::/64 static",
)


def config(**keys: str) -> str:
    return '[daemon]\ncontrol = "/run/npd6-xdp/control.sock"\n' + configuration(*RULES, **keys)


# --- the unit --------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The unit, with programs that are on this machine."""
    file = tmp_path / UNIT.name
    text = UNIT.read_text().replace("/usr/bin/npd6-xdp", sys.executable)
    file.write_text(text.replace("/usr/lib/npd6-xdp/", f"{SYSTEMD}/"))
    return file


def analyze(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "--no-pager", *argv], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong_with_the_unit(here: Path) -> None:
    done = analyze("verify", str(here))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_closes_what_can_be_closed(here: Path) -> None:
    done = analyze("security", "--offline=true", str(here))
    found = re.search(r"Overall exposure level for npd6-xdp.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= 2.3, done.stdout


def test_the_unit_gives_four_capabilities(here: Path) -> None:
    assert sorted(capabilities()) == ["bpf", "net_admin", "net_raw", "perfmon"]
    ambient = re.findall(r"^AmbientCapabilities=(.*)$", here.read_text(), re.MULTILINE)
    bounding = re.findall(r"^CapabilityBoundingSet=(.*)$", here.read_text(), re.MULTILINE)
    assert ambient == bounding
    assert len(ambient) == 1


def test_the_unit_says_how_much_its_store_holds_and_a_process_may_inherit_all_of_it() -> None:
    keys = unit()["Service"]
    assert keys["Environment"].split()[0] == f"FDSTORE={keys['FileDescriptorStoreMax']}"
    assert int(keys["LimitNOFILE"]) >= 2 * int(keys["FileDescriptorStoreMax"])


# --- with its privileges ---------------------------------------------------------------------------------


@pytest.fixture(params=["setpriv", "systemd"])
def host(request: pytest.FixtureRequest, topology: Topology) -> Callable[[str], AbstractContextManager[Hosted]]:
    kinds: dict[str, Any] = {"setpriv": UnderSetpriv, "systemd": UnderSystemd}
    return lambda text: kinds[request.param](topology, text)


@pytest.mark.needs_table
def test_it_does_all_its_work_as_that_user(
    topology: Topology, host: Callable[[str], AbstractContextManager[Hosted]]
) -> None:
    before = left(topology)
    with host(config()) as hosted, Wire(topology) as wire:
        process = dict(line.split(":\t", 1) for line in hosted.status_of_process().splitlines() if ":\t" in line)
        assert process["Uid"].split() == [str(hosted.user)] * 4
        assert {process[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {mask(capabilities())}
        assert process["NoNewPrivs"] == "1"

        # hybrid, and each method
        assert left(topology) == before | {"tc": 1, "allmulti": 1} | dict.fromkeys(SYSCTLS[:2], "1") | {SYSCTLS[2]: "0"}
        ping = topology.run("upstream", "ping", "-6", "-n", "-c", "2", "-i", "0.2", "-W", "3", HOST_ADDRESS)
        assert ping.returncode == 0, ping.stdout
        assert left(topology)["routes"] == [HOST_ADDRESS]
        assert wire.ask(question("2001:db8:2::7")) is not None
        assert until(lambda: left(topology)["proxies"] == ["2001:db8:2::7"], 1.0)
        assert wire.ask(question("2001:db8:2::7")) is not None
        assert wire.ask(question("2001:db8:3::7")) is not None
        assert wire.ask(question("2001:db8:4::7"), 0.1) is None

        # who may ask
        found = hosted.enter(*hosted.program("status"))
        assert found.returncode == 0, found.stderr
        assert "answered_xdp" in found.stdout
        assert "kernel 1" in found.stdout
        as_other = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}")
        found = hosted.enter(*as_other, f"--groups={hosted.group}", *hosted.program("status"))
        assert found.returncode == 0, found.stderr
        refused = hosted.enter(*as_other, "--clear-groups", *hosted.program("status"))
        assert refused.returncode == 1
        assert refused.stderr == (
            "npd6-xdp: /run/npd6-xdp/control.sock: not permitted; ask as root, or as a member of the group that the"
            " socket is of\n"
        )

        # python, by a reload; and one that fails
        hosted.configure(config(datapath='"python"'))
        assert hosted.reload().returncode == 0
        assert wire.ask(question("2001:db8:3::7")) is not None
        assert "answered_python" in hosted.enter(*hosted.program("status")).stdout
        more = "".join(f'[[interface.rule]]\nprefix = "2001:db9:{n:x}::/48"\nmethod = "static"\n' for n in range(3_000))
        hosted.configure(config(datapath='"python"') + more)  # a process beside it loads a larger program
        assert hosted.reload().returncode == 0
        assert wire.ask(question("2001:db9:7::7")) is not None
        hosted.configure("nonsense")
        assert hosted.reload().returncode == 1
        assert wire.ask(question("2001:db8:3::7")) is not None
        assert hosted.stop() == 0
        assert left(topology) == before
    warnings = [line for line in hosted.log.splitlines() if "warning" in line and "gc_thresh" not in line]
    assert [line for line in warnings if "LimitMEMLOCK" not in line] == []


def test_systemd_hears_that_it_is_ready_what_it_does_and_that_it_lives(topology: Topology) -> None:
    with UnderSystemd(topology, config(), first=True) as service:
        assert service.show("StatusText") == "3 rules on wan0"
        assert service.show("RuntimeDirectoryMode") == "0750"
        kept = service.enter("find", "/var/cache/npd6-xdp", "-printf", "%M %U %G\\n").stdout.splitlines()
        assert kept == [f"{mode} {service.user} {service.group}" for mode in ("drwx------", "-rw-------")]
        service.configure(config(metod='"python"'))
        failed = service.reload()
        assert failed.returncode == 1
        assert "failed" in service.show("StatusText")
        assert service.show("ActiveState") == "active"
        assert until(lambda: 'unknown key "metod"' in service.log)
        # a configuration that can't be used is not tried again and again
        service.systemctl("stop", "npd6-xdp")
        assert service.systemctl("start", "npd6-xdp").returncode == 1
        assert (service.show("Result"), service.show("NRestarts")) == ("exit-code", "0")


def test_systemd_restarts_it_when_its_loop_stands(topology: Topology) -> None:
    before = left(topology)
    with UnderSystemd(topology, config(), "WatchdogSec=5\nRestartSec=100ms\nTimeoutAbortSec=1\n") as service:
        time.sleep(5.5)
        assert service.show("NRestarts") == "0", "it is fed"
        with handed_over(topology):
            service.send(signal.SIGSTOP)
            assert service.comes_to(NRestarts="1", ActiveState="active")
        assert left(topology) != before
        assert service.stop() == 0
        assert left(topology) == before, "the successor knows what its predecessor has found"


# --- what it tells ---------------------------------------------------------------------------------------


class Manager:
    """A socket as a service manager's, at `notify` in a directory, which is read all along: it holds few messages."""

    def __init__(self, directory: Path) -> None:
        self._path = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._path)
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self._lines.put(message.decode().splitlines()[0])

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def forget(self) -> None:
        """All that was told so far: a word of our own comes behind it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
            teller.sendto(b"all", self._path)
        while self._lines.get(timeout=60) != "all":
            pass

    def heard(self) -> Iterator[str]:
        with suppress(Empty):
            while True:
                yield self._lines.get_nowait()


@pytest.fixture
def manager(topology: Topology) -> Iterator[Manager]:
    with closing(Manager(topology.directory)) as manager:
        yield manager


def heard(manager: Manager, seconds: float = 0.0) -> list[str]:
    """The messages since the last time and of so long from now, each by its first line."""
    time.sleep(seconds)
    return list(manager.heard())


def states(manager: Manager, count: int) -> list[str]:
    """The next so many messages, those left out that say that it lives or goes on."""
    found: list[str] = []

    def enough() -> bool:
        found.extend(line for line in heard(manager) if not line.startswith(("WATCHDOG=", "EXTEND_")))
        return len(found) >= count

    until(enough)
    return found


def test_a_manager_hears_of_each_state_and_of_a_loop_that_turns(
    topology: Topology, daemon: Start, manager: Manager
) -> None:
    environment = {"NOTIFY_SOCKET": str(topology.directory / "notify"), "WATCHDOG_USEC": "400000"}
    running = daemon(configuration(), environment=environment)
    assert states(manager, 1) == ["READY=1"]

    def is_fed_in_time() -> bool:
        """In some second: no pause of a machine brings two of them closer together."""
        began = time.monotonic()
        manager.forget()
        fed = heard(manager, 1.0)
        took = time.monotonic() - began
        assert set(fed) <= {"WATCHDOG=1"}
        assert len(fed) <= took / 0.2 + 2
        return len(fed) >= 4 and took < 1.2

    assert until(is_fed_in_time)

    with paused(running):
        manager.forget()
        assert heard(manager, 0.8) == []
    assert until(lambda: "WATCHDOG=1" in heard(manager))

    assert verb(running, "reload").returncode == 0
    assert states(manager, 2) == ["RELOADING=1", "READY=1"]
    running.write("nonsense")
    assert verb(running, "reload").returncode == 1
    assert states(manager, 2) == ["RELOADING=1", "READY=1"]
    assert running.stop() == 0
    assert states(manager, 1) == ["STOPPING=1"]
    assert heard(manager) == []


def test_a_flood_keeps_no_watchdog_hungry(topology: Topology, daemon: Start, manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": str(topology.directory / "notify"), "WATCHDOG_USEC": "400000"}
    running = daemon(configuration(datapath='"python"'), environment=environment)
    with Wire(topology) as wire:
        wire.deafen()
        heard(manager)
        frames = [question("2001:db8:1::42")] * 100
        began, fed = time.monotonic(), 0

        def is_fed() -> bool:
            nonlocal fed
            wire.send(*frames * 10)
            fed += len(heard(manager))
            return fed >= 3 and time.monotonic() - began > 1.0

        assert until(is_fed)
    assert sum(running.solicitations().values()) > 1000


# --- without its privileges ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("bpf", "not permitted to load an XDP program: without CAP_BPF; run as root, or give"),
        ("net_admin", "not permitted to load an XDP program: without CAP_NET_ADMIN; run as root, or give"),
        ("perfmon", "not permitted to load an XDP program: without CAP_PERFMON; run as root, or give"),
        ("net_raw", "not permitted to open a packet socket: run as root, or give CAP_NET_RAW"),
    ],
)
def test_a_missing_capability_is_named_in_one_line(topology: Topology, daemon: Start, missing: str, words: str) -> None:
    kept = ",".join(f"+{name}" for name in capabilities() if name != missing)
    program = ("setpriv", f"--bounding-set=-all,{kept}", sys.executable, "-m", "npd6_xdp")
    with pytest.raises(StartError) as caught:
        daemon(configuration(), program=program)
    (line,) = [line for line in caught.value.log.splitlines() if "warning" not in line]
    assert words in line


def test_the_sysusers_file_makes_the_user_of_the_unit() -> None:
    lines = (SYSTEMD / "npd6-xdp.sysusers.conf").read_text().splitlines()
    (line,) = [line for line in lines if not line.startswith("#")]
    assert line.split()[:3] == ["u", "npd6-xdp", "-"]
    assert "User=npd6-xdp\nGroup=npd6-xdp\n" in UNIT.read_text()
