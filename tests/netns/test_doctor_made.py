# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor on faults that are made for real beside a daemon, or by the view that a process has of its machine."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.doctor.finding import Finding, Level
from tests.netns.doctoring import Doctor, of
from tests.netns.test_doctor import Scene
from tests.netns.test_doctor_machine import COMMAND, findings
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, paused, question, scan, until

PREFIX = "2001:db8:4::/64"
NATIVE = {"attach": '"native"'}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "npd6-xdp.toml"
    file.write_text(configuration("2001:db8:1::/64 static"))
    return file


def seen_by(topology: Topology, file: Path, *view: str) -> list[Finding]:
    """What doctor finds at the edge with another view of the machine, which these words make."""
    return findings(topology.run("edge", *view, *COMMAND, str(file)).stdout)


# --- by the view of a process ---


def test_a_kernel_that_is_too_old_is_told_with_what_installs_another(topology: Topology, file: Path) -> None:
    (found,) = of(seen_by(topology, file, "setarch", "--uname-2.6"), "kernel")
    assert found.level is Level.FAIL
    assert found.message.startswith("Linux 2.6.")
    assert "is too old: npd6-xdp needs 5.18 or newer" in found.message
    assert bool(found.mend) == ("the distribution has one" in found.message)
    assert of(seen_by(topology, file), "kernel") == []


def test_a_tool_that_a_mend_takes_is_installed_first_where_it_is_missing(topology: Topology, file: Path) -> None:
    topology.sysctl("edge", "net/ipv6/conf/wan0/accept_ra", 2)
    topology.run("edge", "ip", "-6", "route", "del", "default", check=True)
    (found,) = of(seen_by(topology, file), "default_route")
    assert found.mend == ("rdisc6 -1 wan0",)
    hidden = ("unshare", "-m", "sh", "-c", 'mount --bind /dev/null $(command -v rdisc6); exec "$@"', "sh")
    (found,) = of(seen_by(topology, file, *hidden), "default_route")
    assert found.mend == ("apt-get install ndisc6", "rdisc6 -1 wan0")


def test_a_program_that_the_kernel_refuses_to_a_container_is_told_with_the_cause(
    topology: Topology, file: Path
) -> None:
    """It has all capabilities, and they aren't the machine's."""
    found = seen_by(topology, file, "unshare", "--user", "--map-root-user")
    (program,) = of(found, "program")
    assert program.level is Level.FAIL
    assert "in a user namespace, such as an unprivileged container has" in program.message
    assert program.message.endswith("run npd6-xdp outside of it")
    assert "\n" not in program.message
    assert of(found, "capabilities") == []


HIDE = "for each in /etc /usr/lib; do mount -t tmpfs none $each/systemd; mkdir $each/systemd/network; done"
COVERED, ELSEWHERE = "IPv6ProxyNDPAddress=2001:db8:1::5", "IPv6ProxyNDPAddress=2001:db8:9::5"
SWITCH = "IPv6ProxyNDP=yes"


class Networkd:
    """A view of the machine in which systemd-networkd's files are a test's own."""

    def __init__(self, topology: Topology, file: Path) -> None:
        self._topology, self._config = topology, file
        words = ("unshare", "--mount", "sh", "-ec", f"{HIDE}; echo ready; exec sleep 600")
        self._process = topology.popen("edge", *words, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert "ready" in str(self._process.stdout.readline())
        self._view = ("nsenter", "--mount", f"--target={self._pid()}", f"--wd={Path.cwd()}")

    def _pid(self) -> int:
        """That of the process within: ip(8), which leads to it, may be another."""
        return self._process.pid

    def sh(self, command: str) -> str:
        done = self._topology.run("edge", *self._view, "sh", "-ec", command)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def look(self) -> list[Finding]:
        return of(seen_by(self._topology, self._config, *self._view), "others")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def networkd(topology: Topology, file: Path) -> Iterator[Networkd]:
    view = Networkd(topology, file)
    yield view
    view.close()


FILES = (
    # where, its lines, and those that are left
    ("/etc/systemd/network/a.network", (SWITCH, COVERED), ()),
    ("/etc/systemd/network/b.network", (SWITCH, COVERED, ELSEWHERE), (SWITCH, ELSEWHERE)),
    ("/etc/systemd/network/c.network.d/a b.conf", (f"  {COVERED}",), ()),
    ("/usr/lib/systemd/network/d.network", (SWITCH, COVERED), ()),
)
OTHERS = "/etc/systemd/network/e.network", (SWITCH, ELSEWHERE)


def test_what_has_systemd_networkd_proxy_where_rules_answer_is_told_and_taken_out_and_nothing_else(
    networkd: Networkd,
) -> None:
    for where, lines in (*((where, lines) for where, lines, _ in FILES), OTHERS):
        text = "\\n".join(("[Match]", "Name=wan0", "[Network]", *lines, "DHCP=no"))
        networkd.sh(f"mkdir -p \"$(dirname '{where}')\"; printf '{text}\\n' > '{where}'")
    found = networkd.look()
    assert [each.message.count(": ") for each in found] == [2] * len(FILES)
    for each, (where, _, left) in zip(sorted(found, key=lambda each: each.message), FILES, strict=True):
        assert each.level is Level.NOTE
        assert where in each.message
        assert COVERED in each.message
        assert "2001:db8:9::5" not in each.message
        *mends, reload = each.mend
        assert reload == "networkctl reload"  # it doesn't run here
        for mend in mends:
            networkd.sh(mend)
        own = where.replace("/usr/lib/", "/etc/")
        kept = networkd.sh(f"cat '{own}'").splitlines()
        assert kept == ["[Match]", "Name=wan0", "[Network]", *left, "DHCP=no"]
    assert networkd.look() == []


# --- beside a daemon ---


@pytest.fixture(scope="module")
def beside() -> Iterator[Scene]:
    """One daemon, which reloads for each test, and nobody who asks but these."""
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())
        topology.sysctl("upstream", "net/ipv6/conf/eth0/disable_ipv6", 1)
        running = stack.enter_context(RunningDaemon(topology, configuration(f"{PREFIX} static", **NATIVE)))
        yield Scene(topology, running, stack.enter_context(Doctor(topology)))


def use(scene: Scene, text: str) -> None:
    scene.running.write(text)
    done = verb(scene.running, "reload")
    assert done.returncode == 0, done.stderr


@contextmanager
def told(scene: Scene, check: str, level: Level, *words: str) -> Iterator[Finding]:
    """A finding; after the block, and its mends, there is none that is grave."""
    found: list[Finding] = []

    def is_found() -> bool:
        found[:] = of(scene.look(), check, level)
        return len(found) == 1

    assert until(is_found), found
    assert all(each in found[0].message for each in words), found
    yield found[0]
    if found[0].mend:
        scene.sh(*found[0].mend)
        assert until(lambda: not of(scene.look(), check, Level.WARN, Level.FAIL)), scene.look()


def test_answers_that_the_driver_drops_are_told_and_another_mode_loses_none(beside: Scene) -> None:
    use(beside, configuration(f"{PREFIX} static", **NATIVE))
    with Wire(beside.topology) as wire:
        assert wire.ask(question("2001:db8:4::1"), 0.5) is None, "its peer has no program, so the driver drops it"
        with told(
            beside, "lost", Level.WARN, "wan0: the driver dropped ", '(xdp_tx_errors): attach = "auto" loses none'
        ):
            pass
        assert wire.ask(question("2001:db8:4::1")) is not None


def test_a_limit_that_left_no_space_is_told_and_raised(beside: Scene) -> None:
    use(beside, f"[limits]\nkernel_entries = 1  # too few\n{configuration('2001:db8:2::/64 kernel')}")
    with Wire(beside.topology) as wire:
        for number in (1, 2):
            assert wire.ask(question(f"2001:db8:2::{number}")) is not None
        words = "no space was left for 1 kernel proxy entries: limits.kernel_entries is 1"
        with told(beside, "refused", Level.WARN, words) as found:
            assert len(found.mend) == 2
        assert "kernel_entries = 2\n" in beside.running.config_file.read_text()
        assert wire.ask(question("2001:db8:2::2")) is not None
        assert until(lambda: len(beside.topology.ip("edge", "-6", "neigh", "show", "proxy")) == 2)


@pytest.mark.parametrize("keys", [("wan0",), ("all",), ("wan0", "all")], ids=" and ".join)
def test_a_kernel_that_may_not_proxy_is_told_beside_a_daemon_that_needs_it_and_mended(
    beside: Scene, keys: tuple[str, ...]
) -> None:
    use(beside, configuration("2001:db8:2::/64 kernel", **NATIVE))
    assert until(lambda: of(beside.look(), "proxy_ndp") == [])
    found: list[Finding] = []

    def switch_off() -> None:
        for key in keys:
            beside.topology.sysctl("edge", f"net/ipv6/conf/{key}/proxy_ndp", 0)

    def keep_off() -> None:
        while not heard.wait(0.05):
            switch_off()

    def is_told() -> bool:
        found[:] = of(beside.look(), "proxy_ndp", Level.FAIL)
        return bool(found) and len(found[0].mend) == len(keys)

    # the daemon sets it by itself, every few seconds, and a look takes longer where the machine is busy
    heard = threading.Event()
    somebody = threading.Thread(target=keep_off)
    somebody.start()
    try:
        assert until(is_told), found
    finally:
        heard.set()
        somebody.join()
    assert f"wan0: it is 0 for {' and '.join(keys)}, so the kernel doesn't answer" in found[0].message
    switch_off()
    beside.sh(*found[0].mend)
    assert of(beside.look(), "proxy_ndp") == []


def test_what_was_lost_on_the_way_to_python_is_told_with_what_shows_whose_it_was(beside: Scene) -> None:
    limits = "[limits]\nevents_per_second = 10000000\n"
    use(beside, limits + configuration("2001:db8:1::/64 static", datapath='"python"', events_per_source="0"))
    some = list(scan(1_000))

    def are_lost() -> bool:
        with paused(beside.running):
            for _ in range(40):
                wire.send(*some)
        return beside.running.solicitations().get("lost", 0) > 0

    with Wire(beside.topology) as wire:
        wire.deafen()
        assert until(are_lost)
    count = beside.running.solicitations()["lost"]
    look = f"`npd6-xdp trace --outcome lost --control {beside.running.control}`"
    with told(beside, "lost", Level.WARN, f"wan0: {count} solicitations were lost", look) as found:
        assert found.mend == (), "nothing brings them back"
