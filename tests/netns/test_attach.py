# SPDX-License-Identifier: GPL-2.0-or-later
"""Attaching and letting go: nothing foreign is replaced, nothing of ours is left, each refusal is one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import npd6_xdp
from npd6_xdp.lab.daemon import RunningDaemon, StartError
from npd6_xdp.lab.topology import Topology
from tests.kinds import solicit
from tests.netns.wire import SETTING, Wire, configuration, until

LOSSY = "; not native: native XDP_TX is lost on veth unless the peer has a program, too"
WORDS = {
    "native": "XDP attached (native mode)",
    "generic": "XDP attached (generic mode)",
    "tc": "attached at tc ingress",
}
Start = Callable[..., RunningDaemon]
ROOT = Path(npd6_xdp.__file__).parent.parent


def refusal(daemon: Start, text: str, status: int = 1) -> str:
    """The one line that the daemon ends with instead of starting."""
    with pytest.raises(StartError) as caught:
        daemon(text)
    assert f"exit status {status}" in str(caught.value)
    *_, line = caught.value.log.splitlines()
    assert "Traceback" not in caught.value.log
    return line


def leftovers(topology: Topology) -> dict[str, object]:
    (link,) = topology.ip("edge", "link", "show", "dev", "wan0")
    mode = topology.attach_mode("edge", "wan0")
    return ({"attached": mode} if mode else {}) | {key: link[key] for key in ("allmulti",) if link.get(key)}


@pytest.mark.parametrize("mode", [2, 4], ids=["generic", "native"])
@pytest.mark.parametrize("attach", ["native", "generic"])
def test_a_foreign_program_is_never_replaced_whichever_mode_it_sits_in(
    topology: Topology, daemon: Start, attach: str, mode: int
) -> None:
    words = {2: "generic", 4: "native"}
    topology.xdp_pass("edge", "wan0") if mode == 4 else attach_generic(topology)
    before = topology.ip("edge", "link", "show", "dev", "wan0")[0]["xdp"]
    line = refusal(daemon, configuration(attach=f'"{attach}"'))
    program = before["prog"]["id"]
    assert line == (
        f"npd6-xdp: wan0: another XDP program is attached in {words[mode]} mode: id {program} (xdp_pass);"
        ' detach it first, leave this interface out, or write attach = "auto" to sit beside it by tc (Linux 6.6)'
    )
    assert topology.ip("edge", "link", "show", "dev", "wan0")[0]["xdp"] == before


def attach_generic(topology: Topology) -> None:
    """The same foreign program as Topology.xdp_pass, in generic mode."""
    import ctypes

    from npd6_xdp.system.bpf.compiler import compile_program, load_bcc

    program, function = compile_program("int xdp_pass(void *ctx) { return 2; }", "xdp_pass", {})
    opts = ctypes.create_string_buffer(16)
    opts.raw = (16).to_bytes(8, "little") + (2).to_bytes(8, "little")  # struct bpf_link_create_opts: sz, flags
    with topology.inside("edge"):
        ifindex = socket.if_nametoindex("wan0")
        link = load_bcc().lib.bpf_link_create(function.fd, ifindex, 37, opts)
    assert link >= 0
    program.cleanup()
    topology._links.append(link)


@pytest.mark.parametrize("attach", ["auto", "native", "generic", "tc"])
def test_a_killed_daemon_leaves_nothing_and_the_next_one_starts(topology: Topology, daemon: Start, attach: str) -> None:
    if attach == "native":
        topology.xdp_pass("upstream", "eth0")
    running = daemon(configuration(attach=f'"{attach}"', datapath='"python"'))
    wanted = "tc" if attach == "auto" else attach
    assert topology.attach_mode("edge", "wan0") == wanted
    reason = LOSSY if attach == "auto" else ""
    assert until(lambda: f"wan0: {WORDS[wanted]}, datapath python{reason}\n" in running.log)
    stop = threading.Event()
    with Wire(topology) as wire:

        def load() -> None:
            frame = solicit(SETTING)
            while not stop.is_set():
                wire.send(*[frame] * 100)

        sender = threading.Thread(target=load)
        sender.start()
        try:
            assert until(lambda: running.solicitations().get("answered_python", 0) > 100)
            running.kill()
            assert until(lambda: leftovers(topology) == {}, 1.0)
            again = daemon(configuration(attach=f'"{attach}"', datapath='"python"'))
            assert until(lambda: again.solicitations().get("answered_python", 0) > 100)
        finally:
            stop.set()
            sender.join()
    assert again.stop() == 0
    assert leftovers(topology) == {}


REFUSED = (("an interface without Ethernet", configuration().replace("wan0", "lo"), "lo: not an Ethernet interface"),)


@pytest.mark.parametrize(("what", "text", "message"), REFUSED, ids=[what for what, _, _ in REFUSED])
def test_an_interface_that_cannot_be_is_refused_in_one_line(
    topology: Topology, daemon: Start, what: str, text: str, message: str
) -> None:
    assert message in refusal(daemon, text)
    assert leftovers(topology) == {}


def test_of_two_interfaces_none_stays_attached_when_one_cannot_be(topology: Topology, daemon: Start) -> None:
    topology.xdp_pass("edge", "lan0")
    line = refusal(daemon, configuration() + configuration(attach='"generic"').replace("wan0", "lan0"))
    assert line.startswith("npd6-xdp: lan0: another XDP program is attached")
    assert leftovers(topology) == {}


def test_a_taken_metrics_port_is_one_line_and_nothing_is_ever_attached(topology: Topology, daemon: Start) -> None:
    with topology.inside("edge"), socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", 9846))
        taken.listen()
        with pytest.raises(StartError) as caught:
            daemon(configuration())
    assert caught.value.log.startswith("npd6-xdp: metrics.listen: can't listen on [::1]:9846: Address already in use")
    assert leftovers(topology) == {}


def test_a_file_with_mistakes_ends_it_with_status_2_before_anything_is_touched(
    topology: Topology, daemon: Start
) -> None:
    line = refusal(daemon, configuration("2001:db8:1::/64 neighbour"), status=2)
    assert "interface[0].rule[0].via: " in line
    assert leftovers(topology) == {}


def test_where_a_driver_refuses_native_mode_it_is_by_tc_and_says_why(topology: Topology, daemon: Start) -> None:
    """A bridge has no native XDP; it stands in for such a driver."""
    topology.run("edge", "ip", "link", "add", "br0", "type", "bridge", check=True)
    topology.run("edge", "ip", "link", "set", "br0", "up", check=True)
    text = configuration().replace("wan0", "br0")
    running = daemon(text)
    assert topology.attach_mode("edge", "br0") == "tc"
    why = "the driver refuses an XDP program in native mode: Operation not supported"
    assert until(lambda: f"info: br0: attached at tc ingress, datapath hybrid; not native: {why}" in running.log)
    assert "warning: br0: the driver" not in running.log
    assert running.stop() == 0
    assert "br0: the driver refuses" in refusal(daemon, text.replace('"br0"', '"br0"\nattach = "native"'))


def test_it_says_in_which_mode_it_is_attached_and_by_which_datapath_it_answers(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(configuration(attach='"generic"'))
    assert until(lambda: "npd6-xdp: info: wan0: XDP attached (generic mode), datapath hybrid\n" in running.log)
    assert "wan0: XDP attached (generic mode), datapath hybrid, up\n" in running.command("status").stdout


def test_where_no_configured_interface_exists_it_says_which_there_are(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration().replace("wan0", "ens3"))
    lack = "no configured interface exists: ens3 (present: lan0, wan0)"
    assert until(lambda: f"npd6-xdp: warning: started, but {lack}\n" in running.log)
    assert "ready" not in running.log
    said = running.command("status").stdout
    assert said.startswith(f"not answering\n  {lack}\nnpd6-xdp ")
    done = running.command("reload")
    assert done.stdout == "npd6-xdp: the new configuration is in use, but no configured interface exists\n"


def test_the_wrong_bcc_is_told_from_the_right_one(topology: Topology, daemon: Start, tmp_path: Path) -> None:
    """The package of that name on the Python Package Index is a crystallography library."""
    (tmp_path / "bcc.py").write_text("BPFX = None\n")
    with pytest.raises(StartError) as caught:
        daemon(configuration(), environment={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    *_, line = caught.value.log.splitlines()
    assert line.startswith(
        "npd6-xdp: bcc is missing: install the distribution's package (Debian, Ubuntu: python3-bpfcc;"
    )
    assert "Traceback" not in caught.value.log


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_it_answers_where_there_is_no_scapy(topology: Topology, daemon: Start, tmp_path: Path, datapath: str) -> None:
    (tmp_path / "scapy.py").write_text("raise ImportError('the daemon needs none')\n")
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    running = daemon(configuration(datapath=f'"{datapath}"'), environment=environment)
    with Wire(topology) as wire:
        assert wire.ask(solicit(SETTING)) is not None
    assert running.stop() == 0
    hidden = subprocess.run(
        [sys.executable, "-c", "import scapy"], env={**os.environ, **environment}, capture_output=True, check=False
    )
    assert b"the daemon needs none" in hidden.stderr


def test_a_debug_log_is_ours_alone_and_its_lines_are_json_where_asked_for(topology: Topology, daemon: Start) -> None:
    keys = '[daemon]\nlog_level = "debug"\nlog_format = "json"\n'
    running = daemon(keys + configuration())
    running.stop()
    lines = [json.loads(line) for line in running.log.splitlines()]
    assert [line["message"] for line in lines] == [
        f"wan0: attached at tc ingress, datapath hybrid{LOSSY}",
        "ready: 1 rule on wan0",
        "SIGTERM: ending",
    ]
    assert {line["level"] for line in lines} == {"info"}
