# SPDX-License-Identifier: GPL-2.0-or-later
"""npd6-xdp in ndppd's place: files in the shapes that VyOS, SONiC and NixOS write, by their command lines."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.topology import HOST_ADDRESS, Topology
from npd6_xdp.system.other_daemons import other_daemons
from tests.netns.ndppd_program import SHAPES, Ndppd, ended
from tests.netns.wire import Wire, question, until

UNKNOWN = "2001:db8:2::7"


@pytest.fixture
def ndppd(topology: Topology) -> Iterator[Ndppd]:
    with Ndppd(topology) as found:
        yield found
        print(found.log)


def pinged(topology: Topology) -> bool:
    done = topology.run("upstream", "ping", "-6", "-n", "-c", "2", "-i", "0.2", "-W", "3", HOST_ADDRESS)
    return done.returncode == 0


@pytest.mark.needs_table
def test_the_shape_of_vyos_runs_in_the_background_with_a_pidfile(topology: Topology, ndppd: Ndppd) -> None:
    shutil.copy(SHAPES / "vyos.conf", ndppd.config)
    with Wire(topology) as wire:
        assert wire.ask(question(HOST_ADDRESS), 0.1) is None
        starter = ndppd.start("-d", "-p", str(ndppd.pidfile), "-c", str(ndppd.config))
        assert starter.wait(120) == 0, ndppd.log
        assert ndppd.pid != starter.pid
        assert Path(f"/proc/{ndppd.pid}/comm").read_text() == "ndppd\n", "as those who look for it by name want it"
        assert os.getsid(ndppd.pid) == ndppd.pid
        assert [Path(f"/proc/{ndppd.pid}/fd/{fd}").readlink() for fd in range(3)] == [Path(os.devnull)] * 3
        assert pinged(topology)
        assert wire.ask(question(UNKNOWN)) is not None
        assert wire.ask(question("2001:db8:3::7"), 0.2) is None, "no route leads there"
        status = ndppd.status()
        assert status["configuration"] == str(ndppd.config)
        os.kill(ndppd.pid, signal.SIGTERM)
        pid = ndppd.pid
        assert ended(pid)
        assert not ndppd.pidfile.exists()
        assert wire.ask(question(UNKNOWN), 0.1) is None
    assert f"{ndppd.config}:11: timeout 500: no equal" in ndppd.log


def test_the_shape_of_sonic_runs_in_the_foreground_and_its_rules_come_and_go(topology: Topology, ndppd: Ndppd) -> None:
    shutil.copy(SHAPES / "sonic-idle.conf", ndppd.config)
    process = ndppd.up("-c", str(ndppd.config))
    with Wire(topology) as wire:
        assert ndppd.says("no rule: nothing is answered until the file has one")
        assert wire.ask(question(UNKNOWN), 0.1) is None
        shutil.copy(SHAPES / "sonic.conf", ndppd.config)
        process.send_signal(signal.SIGHUP)
        assert ndppd.says("reload: the new configuration is in use")
        for target in (HOST_ADDRESS, UNKNOWN):
            assert wire.ask(question(target)) is not None
        ndppd.config.write_text("proxy wan0 {\n rule 2001:db8:2::/64 {\n auto\n static\n }\n}\n")
        process.send_signal(signal.SIGHUP)
        assert ndppd.says(f"reload: {ndppd.config}:2: rule: auto (line 3) and static (line 4); only one of")
        assert wire.ask(question(UNKNOWN)) is not None
        shutil.copy(SHAPES / "sonic-idle.conf", ndppd.config)
        process.send_signal(signal.SIGHUP)
        assert ndppd.says("reload: the new configuration is in use", 2)
        assert wire.ask(question(UNKNOWN), 0.1) is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_the_shape_of_nixos_answers_by_the_route(topology: Topology, ndppd: Ndppd) -> None:
    shutil.copy(SHAPES / "nixos.conf", ndppd.config)
    ndppd.up("-c", str(ndppd.config))
    with Wire(topology) as wire, topology.inside("edge"):
        assert other_daemons() == [], "it is none beside itself"
        answer = wire.ask(question(HOST_ADDRESS))
        assert answer is not None
        assert NeighborAdvertisement.parse(answer).router
        assert wire.ask(question(UNKNOWN)) is not None
        assert wire.ask(question("2001:db8:2::8"), 0.1) is None
    assert "is running here" not in ndppd.log
    assert "debug: " not in ndppd.log


def only(prefix: str) -> str:
    return f"proxy wan0 {{\n rule {prefix} {{\n static\n }}\n}}\n"


def test_run_takes_an_ndppd_conf_too_and_reads_it_again_at_sighup(topology: Topology, ndppd: Ndppd) -> None:
    ndppd.config.write_text(only("2001:db8:2::/64"))
    ndppd.program = Path(sys.executable)
    process = ndppd.start("-m", "npd6_xdp", "run", "--ndppd", str(ndppd.config))
    ndppd.pidfile.write_text(str(process.pid))
    assert until(lambda: "ready: 1 rule on wan0" in ndppd.log or process.poll() is not None), ndppd.log
    assert ndppd.status()["configuration"] == str(ndppd.config)
    first, second = UNKNOWN, "2001:db8:3::7"
    with Wire(topology) as wire:
        assert wire.ask(question(first)) is not None
        assert wire.ask(question(second), 0.2) is None
        ndppd.config.write_text(only("2001:db8:3::/64"))
        process.send_signal(signal.SIGHUP)
        assert ndppd.says("reload: the new configuration is in use")
        assert wire.ask(question(second)) is not None
        assert wire.ask(question(first), 0.2) is None
        ndppd.config.write_text(only("2001:db8:g::/64")[:-2])
        process.send_signal(signal.SIGHUP)
        assert ndppd.says(f"reload: {ndppd.config}:1: proxy: its block is never closed")
        assert wire.ask(question(second)) is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_what_ndppd_goes_on_without_is_said_and_the_rest_is_answered(topology: Topology, ndppd: Ndppd) -> None:
    ndppd.config.write_text(
        "colour blue\nproxy wan0 {\n rule 2001:db8:1::2 {\n static\n }\n rule 2001:db8:g::/64 {\n static\n }\n"
        " rule 2001:db8:4::/64 {\n iface wan0\n }\n rule 2001:db8:2::/64 {\n static;\n }\n}\n"
        "proxy later0 {\n rule 2001:db8:5::/64 {\n static\n }\n}\n"
    )
    process = ndppd.up("-x", "-vvc", str(ndppd.config))
    with Wire(topology) as wire:
        assert wire.ask(question("2001:db8:1::2")) is not None
        assert wire.ask(question(UNKNOWN)) is not None
    process.send_signal(signal.SIGHUP)
    assert ndppd.says("debug: reload: read in ")
    log = ndppd.log
    assert "npd6-xdp-ndppd: -x: passed over, as ndppd does" in log
    assert f"warning: {ndppd.config}:6: rule: must be an IPv6 address or prefix" in log
    assert f"warning: {ndppd.config}:10: iface wan0: the question comes from there" in log
    assert f"info: {ndppd.config}:1: colour blue: left out: ndppd doesn't know it" in log
    assert "later0: no such interface" in log


@pytest.mark.parametrize("words", [(), ("-d",)])
def test_what_ndppd_refuses_is_refused_before_it_goes_to_the_background(
    topology: Topology, ndppd: Ndppd, words: tuple[str, ...]
) -> None:
    ndppd.config.write_text("proxy wan0 {\n rule 2001:db8:2::/64 {\n static\n }\n")
    process = ndppd.start("-c", str(ndppd.config), "-p", str(ndppd.pidfile), *words)
    assert process.wait(60) == 2
    assert ndppd.log == f"npd6-xdp: {ndppd.config}:1: proxy: its block is never closed\n"
    assert not ndppd.pidfile.exists()
    ndppd.config.unlink()
    process = ndppd.start("-c", str(ndppd.config), *words)
    assert process.wait(60) == 2
    assert f"npd6-xdp: {ndppd.config}: can't read it: No such file or directory\n" in ndppd.log


def test_in_the_background_it_speaks_to_syslog(topology: Topology, ndppd: Ndppd) -> None:
    """Where /dev/log is somebody's, here ours: in a mount namespace of the daemon's own."""
    ndppd.config.write_text("proxy wan0 {\n rule 2001:db8:2::/64 {\n static\n }\n}\n")
    place = topology.directory / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(place))
        syslog.settimeout(60)
        heard: list[str] = []

        def hears(part: str) -> bool:
            while not any(part in line for line in heard):
                heard.append(syslog.recv(1 << 16).decode())
            return True

        script = f'mkdir -p /dev; mount --bind "$0" "$(readlink -f /dev/log)"; exec {ndppd.program} "$@"'
        target = Path("/dev/log")
        if not target.exists():
            script = (
                "mount -t tmpfs tmpfs /mnt; mkdir /mnt/dev; cp -a /dev/null /dev/random /dev/urandom /mnt/dev;"
                f' ln -s "$0" /mnt/dev/log; mount --bind /mnt/dev /dev; exec {ndppd.program} "$@"'
            )
        words = ("sh", "-ec", script, str(place), "-dc", str(ndppd.config), "-p", str(ndppd.pidfile))
        ndppd.program = Path("/usr/bin/env")
        assert ndppd.start(*words).wait(120) == 0, ndppd.log
        os.kill(ndppd.pid, signal.SIGHUP)
        assert hears(f"<30>npd6-xdp[{ndppd.pid}]: info: reload: the new configuration is in use")
    assert until(lambda: "ready: " in ndppd.log), "until it answers, it speaks to who has started it"
