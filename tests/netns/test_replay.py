# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp replay` of what tcpdump saw on a wire: it says what the daemon has sent there, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS
from scapy.layers.l2 import CookedLinux
from scapy.utils import PcapReader, RawPcapNgWriter

from npd6_xdp.core.errors import MachineError, UsageError
from npd6_xdp.core.icmpv6 import NeighborAdvertisement
from npd6_xdp.lab.capture import Advertisement, Capture, read, settle
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import HOST_ADDRESS, UPSTREAM_ADDRESS, Topology
from npd6_xdp.tools import cooked
from npd6_xdp.tools.pcap import frames
from tests.frames import TAGS_8021Q, ip6
from tests.kinds import solicit
from tests.netns.wire import SETTING, Wire, configuration, question, until

Start = Callable[..., RunningDaemon]


@pytest.mark.parametrize("method", ["route", "neighbour via=lan0"])
def test_it_says_what_the_daemon_has_sent(topology: Topology, daemon: Start, method: str) -> None:
    running = daemon(configuration(f"2001:db8:1::/64 {method}"))
    with Capture(topology, "upstream", "eth0") as capture, Wire(topology) as wire:
        # it asks once, however late the daemon is: who asks again is answered once for both
        topology.sysctl("upstream", "net/ipv6/neigh/eth0/retrans_time_ms", 60_000)
        ping = topology.run("upstream", "ping", "-6", "-n", "-c", "1", "-W", "60", HOST_ADDRESS)
        assert ping.returncode == 0, ping.stdout
        wire.send(question("2001:db8:9::1"), question(HOST_ADDRESS, options=b""), question(UPSTREAM_ADDRESS))
        assert until(lambda: sum(running.solicitations().values()) >= 4)
    sent = [each.frame for each in read(capture.file) if isinstance(each, Advertisement) and not each.override]
    attached = topology.attach_mode("edge", "wan0")
    done = running.command("replay", str(capture.file), "--config", str(running.config_file), "--json")
    assert done.returncode == 0, done.stderr
    assert topology.attach_mode("edge", "wan0") == attached, "it attaches to nothing"
    told = json.loads(done.stdout)
    assert told["notes"] == []
    ours = [each for each in told["solicitations"] if each["target"] == HOST_ADDRESS]
    assert [each["advertisement"]["frame"] for each in ours if each["advertisement"]] == [
        frame.hex() for frame in sent if NeighborAdvertisement.parse(frame).target.hex().startswith("20010db80001")
    ]
    assert {each["outcome"] for each in ours} == {"answered_xdp"}
    outcomes = {each["target"]: each["outcome"] for each in told["solicitations"]}
    assert outcomes["2001:db8:9::1"] == "unmatched"
    whys = {each["why"] for each in ours}
    assert whys == {"there is a route to it" if method == "route" else "the neighbour table has it behind lan0"}
    # another table, here: nothing leads there by wan0
    topology.run("edge", "ip", "-6", "route", "replace", "2001:db8:1::/64", "dev", "wan0", "metric", "1", check=True)
    again = running.command("replay", str(capture.file), "--config", str(running.config_file))
    assert ("absent: rule 2001:db8:1::/64 (route); no route to it" in again.stdout) == (method == "route")


QINQ = bytes.fromhex("88a8006481000007")
TRUNK = configuration("2001:db8:1::/64 static", vlan='"any"')
COOKED = {"LINUX_SLL": 113, "LINUX_SLL2": 276}


@contextmanager
def tcpdump(topology: Topology, interface: str, *more: str) -> Iterator[Path]:
    """What tcpdump sees on the edge; LINUX_SLL and LINUX_SLL2 are tcpdump's words for the two cooked headers."""
    file = topology.directory / f"{interface}-{'-'.join(more)}.pcap"
    log = file.with_suffix(".log")
    words = ("tcpdump", "-n", "-i", interface, "--immediate-mode", "-U", "-w", "-", *more)
    with file.open("wb") as packets, log.open("w") as said:
        process = topology.popen("edge", *words, stdout=packets, stderr=said)
        assert until(lambda: "listening on" in log.read_text()), log.read_text()
        yield file
        settle(process)
        process.terminate()
        process.wait()


def replay(topology: Topology, file: Path, *more: str) -> dict[str, Any]:
    words = (sys.executable, "-m", "npd6_xdp", "replay", str(file), "--json", *more)
    done = topology.run("edge", *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def told(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    keys = ("target", "source", "eth_source", "vlan", "outcome", "reason", "advertisement")
    return [tuple(each[key] for key in keys) for each in found["solicitations"]]


@pytest.mark.needs_table  # nor must a kernel that asks once find it full
def test_captures_on_any_tell_what_one_on_the_interface_itself_tells(topology: Topology, tmp_path: Path) -> None:
    """The three at once, of the edge's kernel; nobody answers, so that what came in is seen."""
    config = tmp_path / "a.toml"
    config.write_text(TRUNK)
    tagged = replace(SETTING, target=ip6("2001:db8:1::78"), tags=TAGS_8021Q)
    # else a kernel asks again while one capture has ended and another hasn't
    topology.sysctl("upstream", "net/ipv6/neigh/eth0/retrans_time_ms", 60_000)
    topology.sysctl("edge", "net/ipv6/neigh/wan0/retrans_time_ms", 60_000)
    topology.sysctl("host", "net/ipv6/neigh/eth0/retrans_time_ms", 60_000)
    with ExitStack() as stack:
        ethernet = stack.enter_context(tcpdump(topology, "wan0"))
        files = {kind: stack.enter_context(tcpdump(topology, "any", "-y", kind)) for kind in COOKED}
        topology.run("upstream", "ping", "-6", "-n", "-c", "1", "-W", "1", HOST_ADDRESS)
        topology.run("edge", "ping", "-6", "-n", "-c", "1", "-W", "1", "2001:db8::7")  # asks by itself
        topology.run("host", "ping", "-6", "-n", "-c", "1", "-W", "1", "2001:db8:1::1")  # asks elsewhere
        with Wire(topology) as wire:
            wire.send(
                question("2001:db8:1::77"),
                question("2001:db8:1::79", checksum_error=1),
                SETTING.mac + question("2001:db8:1::7a")[6:],
                bytes.fromhex("020000009999") + question("2001:db8:1::7b")[6:],
                solicit(tagged),
                solicit(replace(SETTING, target=ip6("2001:db8:1::7c"), tags=QINQ)),
            )
    plain = replay(topology, ethernet, "--config", str(config))
    ours = [each for each in told(plain) if each[2] != SETTING.mac.hex(":")]  # an interface has its own, too
    assert {"answered_xdp", "ignored", "invalid"} == {each[4] for each in ours}
    assert [each[3] for each in ours if each[3]] == [[100], [100, 7]]
    for kind, file in files.items():
        found = replay(topology, file, "--config", str(config))
        by_scapy = [
            packet
            for packet in PcapReader(str(file))
            if ICMPv6ND_NS in packet and packet.getlayer(0).pkttype == 4  # outgoing
        ]
        assert found["summary"]["outgoing"] >= len(by_scapy) >= 1
        if kind == "LINUX_SLL":  # it doesn't say by which interface
            here = [each for each in told(found) if each[2] == SETTING.asker_mac.hex(":")]
            assert here == ours
            assert found["notes"] == []
        else:
            assert found["summary"]["elsewhere"] >= 1
            untagged = [each[0] for each in ours if not each[3]]
            assert [each[0] for each in told(found) if each[0] in untagged] == untagged
            assert [each for each in told(found) if each[0] in untagged] == [each for each in ours if not each[3]]
            assert found["notes"] == [
                "this capture on `any` (LINUX_SLL2) has no VLAN tags that were beside the frame: capture on the"
                " interface itself, or with tcpdump -y LINUX_SLL"
            ]
        # the same in pcapng
        again = tmp_path / f"{kind}.pcapng"
        with RawPcapNgWriter(str(again)) as writer:
            writer.linktype = COOKED[kind]
            writer.write_header(None)
            for packet in PcapReader(str(file)):
                writer.write_packet(packet.original, sec=float(packet.time))
        assert told(replay(topology, again, "--config", str(config))) == told(found)


def solicitations_in(file: Path) -> int:
    """How many a capture under way has so far, of those that are whole."""
    with suppress(MachineError, UsageError):
        return sum(b"\x3a\xff" in frame.data and b"\x87\0" in frame.data for frame in frames(file))
    return 0


def test_an_oracle_reads_the_same_out_of_a_cooked_capture(topology: Topology) -> None:
    """Scapy dissects what tcpdump wrote: its types, addresses and tags are those of the frames made of it."""
    with tcpdump(topology, "any", "-y", "LINUX_SLL") as file, Wire(topology) as wire:
        wire.send(question(HOST_ADDRESS), SETTING.mac + question(HOST_ADDRESS)[6:])

        def has_asked() -> bool:
            """Whether the edge's kernel has, too; it can't while other tests have the neighbour table full."""
            topology.run("edge", "ping", "-6", "-n", "-c", "1", "-W", "1", "2001:db8::7")
            return solicitations_in(file) >= 3

        assert until(has_asked)
    seen = 0
    for frame, packet in zip(frames(file), PcapReader(str(file)), strict=True):
        found = cooked.parse(frame)
        assert found is not None
        header = packet[CookedLinux]
        assert (found.kind, found.device) == (header.pkttype, header.lladdrtype)
        assert found.source == bytes(header.src)[:6]
        assert found.rest == bytes(packet)[14:]
        seen += ICMPv6ND_NS in packet
    assert seen >= 3


@pytest.mark.parametrize("interface", ["any", "wan0"])
def test_a_stream_is_told_as_it_comes(topology: Topology, tmp_path: Path, interface: str) -> None:
    config, out, log, pid = (tmp_path / name for name in ("a.toml", "out", "log", "pid"))
    config.write_text(configuration())
    line = (
        f"sh -c 'echo $$ >{pid}; exec tcpdump -n -i {interface} --immediate-mode -U -w - icmp6 2>{log}' |"
        f" {sys.executable} -m npd6_xdp replay - --config {config} >{out} 2>&1"
    )
    process = topology.popen("edge", "sh", "-c", line)
    assert until(lambda: log.exists() and "listening on" in log.read_text())
    with Wire(topology) as wire:
        for target in ("2001:db8:1::77", "2001:db8:1::78"):
            wire.send(question(target))
            assert until(lambda t=target: f"asks who has {t}\n  answered_xdp: " in out.read_text())  # type: ignore[misc]
    os.kill(int(pid.read_text()), signal.SIGTERM)
    assert process.wait(60) == 0, out.read_text()
    assert "  answered_xdp 2" in out.read_text().splitlines()[-1]
