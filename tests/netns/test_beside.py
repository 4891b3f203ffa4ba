# SPDX-License-Identifier: GPL-2.0-or-later
"""The service beside a daemon that root runs by hand, in one network namespace: each leaves the other what it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from npd6_xdp.lab.topology import Topology
from tests.netns.handovers import CONTROL, PROXIED, kill, restart
from tests.netns.service import UnderSetpriv, UnderSystemd, as_user, left
from tests.netns.wire import Wire, configuration, on_edge, question, until

THEIRS = "2001:db8:6::7"
"""A proxy entry of the other's, on lan0."""
OTHERS = '[daemon]\ncontrol = "/run/npd6-xdp/other.sock"\n[metrics]\nlisten = ""\n' + configuration(
    "2001:db8:6::/64 kernel"
).replace("wan0", "lan0")
OURS = CONTROL + configuration("2001:db8:2::/64 kernel")
OTHER = "another npd6-xdp runs in this network namespace (pid "
OF_LAN0 = "conf/lan0/proxy_ndp"


class ByHand:
    """Root's, which sees the service's files, and is told of by no unit of its own: NOTIFY_SOCKET isn't set."""

    def __init__(self, topology: Topology, service: UnderSystemd) -> None:
        self._service, self._log = service, topology.directory / "other.log"
        (topology.directory / "other.toml").write_text(OTHERS)
        words = ("-p", "DefaultDependencies=no", "-p", "StandardError=append:/run/lab/other.log", "--unit=other")
        program = service.program("run", "--config", "/run/lab/other.toml")
        began = service.enter("systemd-run", *words, "--", "/usr/bin/env", *program[1:])
        assert began.returncode == 0, began.stderr
        assert until(lambda: "ready: " in self.log, 20.0), self.log

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    @property
    def pid(self) -> str:
        """Its process's id, where the service is."""
        return self._service.systemctl("show", "--value", "--property", "MainPID", "other").stdout.strip()

    def stop(self) -> None:
        self._service.systemctl("stop", "other")


def of_lan0(topology: Topology) -> str:
    with topology.inside("edge"):
        return Path("/proc/sys/net/ipv6", OF_LAN0).read_text().strip()


@pytest.mark.needs_table
@pytest.mark.parametrize("first", ["root", "service"])
def test_the_service_and_a_daemon_of_roots_leave_each_other_alone_whatever_becomes_of_either(
    topology: Topology, first: str
) -> None:
    """Root's file is its own, and the service's user has to see that it lives."""
    before, was = left(topology), of_lan0(topology)
    with UnderSystemd(topology, OURS) as service, Wire(topology) as wire:
        if first == "root":
            service.stop()
        other = ByHand(topology, service)
        if first == "root":
            assert service.systemctl("start", "npd6-xdp").returncode == 0
            assert service.says(f"{OTHER}{other.pid})")
        else:
            assert f"{OTHER}{service.show('MainPID')})" in other.log
        on_edge(topology, f"-6 neigh add proxy {THEIRS} dev lan0 protocol 136")

        def proxies() -> set[str]:
            return {*left(topology)["proxies"]}

        for how in (restart, kill, restart):
            told = service.log.count(OTHER)
            assert wire.ask(question(PROXIED)) is not None
            assert until(lambda: proxies() == {PROXIED, THEIRS})
            how(service)
            assert until(lambda told=told: service.log.count(OTHER) == told + 1)  # type: ignore[misc]
            # what it took back at a clean end is made anew; what bears our number only is nobody's but theirs
            assert THEIRS in proxies()
        assert service.enter(*service.program("clean")).stdout.startswith(
            "npd6-xdp: taken away: host routes 0, proxy entries 0; put back: sysctls 0\n"
        )
        assert wire.ask(question(PROXIED)) is not None
        assert until(lambda: proxies() == {PROXIED, THEIRS})
        assert service.stop() == 0
        assert left(topology) == before | {"proxies": [THEIRS], "conf/all/proxy_ndp": "1"}
        assert of_lan0(topology) == "1"
        assert "no file of a daemon's" not in service.log + other.log
        other.stop()
        assert (left(topology), of_lan0(topology)) == (before, was)


@pytest.mark.needs_table
def test_what_roots_daemon_has_left_behind_when_it_was_killed_the_service_takes_away(topology: Topology) -> None:
    before, was = left(topology), of_lan0(topology)
    with UnderSystemd(topology, OURS) as service:
        other = ByHand(topology, service)
        on_edge(topology, f"-6 neigh add proxy {THEIRS} dev lan0 protocol 136")
        service.enter("kill", "-9", other.pid)
        assert until(lambda: other.pid == "0")
        restart(service)
        assert until(lambda: of_lan0(topology) == was)
        assert until(lambda: left(topology)["proxies"] == [])
        assert service.stop() == 0
        assert left(topology) == before


@pytest.mark.parametrize("attach", ["tc", "generic"])
def test_a_second_one_of_the_services_user_is_refused_on_an_interface_of_the_first(
    topology: Topology, attach: str
) -> None:
    """Which isn't told whose a program is, as that takes CAP_SYS_ADMIN."""
    with UnderSetpriv(topology, CONTROL + configuration(attach=f'"{attach}"')) as service:
        (pid,) = re.findall(r"(?m)^Pid:\t(\d+)$", service.status_of_process())
        before, second = left(topology), topology.directory / "second.toml"
        for attach_to in ("tc", "generic", "auto"):
            keys = OTHERS.partition("[[interface]]")[0]
            second.write_text(keys + configuration(attach=f'"{attach_to}"'))
            done = service.enter(*as_user(), *service.program("run", "--config", str(second)))
            assert done.returncode == 1, done.stderr
            *_, line = done.stderr.splitlines()
            assert line == (
                f"npd6-xdp: wan0: another npd6-xdp's program is there already: pid {pid}; end that one, or leave this"
                " interface out"
            )
            assert left(topology) == before
        with Wire(topology) as wire:
            assert wire.ask(question("2001:db8:1::77")) is not None
        claims = topology.directory / "runtime" / "interfaces"
        assert claims.exists()
        assert service.stop() == 0
        assert not claims.exists()
