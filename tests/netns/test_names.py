# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that Linux takes and people don't expect: bytes that are no text, escape sequences, and alternative ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.verb import verb
from tests.netns.wire import Wire, configuration, on_edge, question, until

Start = Callable[..., RunningDaemon]

ODD = {b"lan\xff": r"lan\xff", b"a\x1b[31mred": r"a\x1b[31mred", b'q"x\\y': r'q"x\x5cy', b"<b>x": "<b>x"}


def ip(topology: Topology, *words: bytes) -> None:
    """As on_edge(), with bytes for words."""
    topology.run("edge", "ip", *(os.fsdecode(word) for word in words), check=True)


def test_odd_names_are_escaped_wherever_they_are_shown_and_end_nothing(topology: Topology, daemon: Start) -> None:
    names = list(ODD)
    ip(topology, b"link", b"add", names[0], b"up", b"type", b"bridge")  # there at the start, the others come later
    rule = "2001:db8:9::/64 kernel"
    running = daemon(configuration(rule).replace('"wan0"', '"*"'))
    for name in names[1:]:
        ip(topology, b"link", b"add", name, b"up", b"type", b"bridge")
    labels = {("npd6_interface_up", frozenset({("interface", text)})) for text in ODD.values()}
    assert until(lambda: labels <= running.metrics().keys())
    assert until(lambda: all(f"{text}: attached" in running.log for text in ODD.values()))
    shown = verb(running, "status")
    listed = json.loads(verb(running, "status", "--json").stdout)
    assert set(ODD.values()) <= {interface["port"] for interface in listed["interfaces"]}
    for text in (running.log, shown.stdout, running.metrics_text()):
        assert all(character.isprintable() or character == "\n" for character in text)
    for name, text in ODD.items():  # and what speaks to the kernel by name finds it
        topology.run("edge", "sh", "-c", 'test "$(cat /proc/sys/net/ipv6/conf/"$1"/proxy_ndp)" = 1', "sh",
                     os.fsdecode(name), check=True)  # fmt: skip
        assert f"{text}: can't" not in running.log
    assert "Traceback" not in running.log
    assert running.stop() == 0
    for name in ODD:
        topology.run("edge", "sh", "-c", 'test "$(cat /proc/sys/net/ipv6/conf/"$1"/proxy_ndp)" = 0', "sh",
                     os.fsdecode(name), check=True)  # fmt: skip


@pytest.mark.parametrize("start", ["before", "after"])
def test_an_alternative_name_is_followed_to_its_interface_in_every_place(
    topology: Topology, daemon: Start, start: str, tmp_path: Path
) -> None:
    def give() -> None:
        on_edge(topology, "link property add dev wan0 altname uplink-to-the-provider")
        on_edge(topology, "link property add dev lan0 altname inner")

    if start == "before":
        give()
    text = configuration("interface:inner static", "2001:db8:7::/64 neighbour via=inner")
    text = text.replace('"wan0"', '"uplink-to-the-provider"')
    running = daemon(text)
    if start == "after":
        assert until(lambda: "uplink-to-the-provider: no such interface" in running.log)
        assert until(lambda: "via inner: no such interface" in running.log)
        give()
    assert until(lambda: "wan0: attached" in running.log)
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(question("2001:db8:1::4711"), 0.3) is not None)
        assert until(lambda: running.solicitations().get("answered_xdp", 0) >= 1)
    on_edge(topology, "-6 neigh replace 2001:db8:7::1 lladdr 02:00:00:00:00:07 dev lan0")
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(question("2001:db8:7::1"), 0.3) is not None)
    status = json.loads(verb(running, "status", "--json").stdout)
    assert [line for line in status["warnings"] if "gc_thresh" not in line] == []
    assert [interface["interface"] for interface in status["interfaces"]] == ["wan0"]
    config = tmp_path / "c.toml"
    config.write_text(text)
    for interface in ("uplink-to-the-provider", "wan0"):
        told = running.command("explain", "2001:db8:1::4711", "--interface", interface, "--config", str(config))
        assert told.returncode == 0, told.stderr
        assert "static" in told.stdout
    assert verb(running, "reload").returncode == 0
    on_edge(topology, "link property del dev wan0 altname uplink-to-the-provider")
    assert until(lambda: "wan0: detached" in running.log)
