# SPDX-License-Identifier: GPL-2.0-or-later
"""VLAN tags beside the frame, as a VLAN device on a veth's other end puts them: the port falls silent, and says why.

No VLAN device here, which this machine's kernel may lack: a program on the upstream's way out pushes the tag of frames
with a mark, by the same function as such a device. tests/kernels has the scene with devices.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest

from npd6_xdp.core.hidden import SEEMS_MENDED
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Namespace, Topology
from npd6_xdp.system.bpf.compiler import compile_program, load_bcc, load_function
from tests.bench.counter import Counter
from tests.bench.generators import Order
from tests.frames import TAGS_8021Q, TAGS_MENU
from tests.netns.commanded import commanded
from tests.netns.tracing import Trace
from tests.netns.verb import verb
from tests.netns.wire import EDGE, Wire, configuration, flood, on_edge, question, says, scan, until
from tests.soak.traffic import STATIC, generator

Start = Callable[..., RunningDaemon]

MARK = 100
PUSH = """
int nothing(struct xdp_md *ctx) { return 2; }
int push(struct __sk_buff *skb)
{
	if (skb->mark == 100)
		bpf_skb_vlan_push(skb, 0x0081, 100); /* ETH_P_8021Q, in network order */
	return -1; /* what else there is goes on */
}
"""
_TCX_EGRESS = 47
GENERIC = {"attach": '"generic"'}
TRUNK = configuration(**GENERIC) + configuration("2001:db8:2::/64 static", vlan="100")


@pytest.fixture
def hidden(topology: Topology) -> Iterator[Wire]:
    """What is sent by it arrives with the tag of VLAN 100 beside the frame."""
    with tag_beside(topology, "eth0") as wire:
        yield wire


@cache
def _push() -> tuple[Any, Any]:
    """The program, as bcc's module and function: compiled once, which takes 0.2 s."""
    module, _ = compile_program(PUSH, "nothing", {})
    return module, load_function(module, "push", load_bcc().BPF.SCHED_CLS)


@contextmanager
def tag_beside(topology: Topology, interface: str, namespace: Namespace = "upstream") -> Iterator[Wire]:
    _, function = _push()
    with topology.inside(namespace):
        ifindex = socket.if_nametoindex(interface)
        opts = ctypes.create_string_buffer((16).to_bytes(8, "little") + bytes(8), 16)
        link = load_bcc().lib.bpf_link_create(function.fd, ifindex, _TCX_EGRESS, opts)
    assert link >= 0, "Linux 6.6 has tcx"
    with Wire(topology, namespace, interface) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        yield wire
    os.close(link)


def ups(running: RunningDaemon) -> dict[str, float]:
    return {
        dict(labels)["interface"]: value
        for (name, labels), value in running.metrics().items()
        if name == "npd6_interface_up"
    }


def asked(target: str, *, inside: bool = False) -> bytes:
    frame = question(target)
    return frame[:12] + TAGS_8021Q + frame[12:] if inside else frame


def is_silenced(running: RunningDaemon) -> bool:
    return set(ups(running).values()) == {0.0} and "tags of VLAN 100 stand beside the frames" in running.log


def with_hop_limit(frame: bytes, limit: int) -> bytes:
    at = frame.index(b"\x86\xdd") + 2 + 7
    return frame[:at] + bytes([limit]) + frame[at + 1 :]


def test_an_invalid_copy_with_a_tag_within_of_what_was_passed_before_silences_nothing(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(TRUNK)
    passed = "2001:db8:9::9"  # no rule's
    with Wire(topology) as wire:
        assert wire.ask(asked("2001:db8:2::9", inside=True)) is not None
        wire.send(*8 * (asked(passed), with_hop_limit(asked(passed, inside=True), 254)))
        assert until(lambda: running.solicitations("wan0:100").get("invalid") == 8)
        assert until(lambda: running.solicitations("wan0").get("unmatched") == 8)
        assert wire.ask(asked("2001:db8:1::9")) is not None
    assert "beside the frames" not in running.log
    assert set(ups(running).values()) == {1.0}


def test_under_auto_tags_beside_the_frames_are_seen_at_tc_and_nothing_is_silent(
    topology: Topology, daemon: Start, hidden: Wire
) -> None:
    running = daemon(TRUNK.replace('attach = "generic"', 'attach = "auto"'))
    with Wire(topology) as wire:
        for _ in range(2):
            assert hidden.ask(asked("2001:db8:2::9")) is not None
            assert hidden.ask(asked("2001:db8:1::9"), 0.3) is None, "no rule of VLAN 100's"
            assert wire.ask(asked("2001:db8:1::9")) is not None
    assert running.solicitations("wan0") == {"answered_xdp": 2}
    assert running.solicitations("wan0:100") == {"answered_xdp": 2, "unmatched": 2}
    assert set(ups(running).values()) == {1.0}
    assert "beside the frames" not in running.log


@pytest.mark.parametrize("grown", [False, True], ids=["as it starts", "after a larger program took over"])
def test_a_port_with_tags_beside_its_frames_is_silent_until_they_stand_within(
    topology: Topology, daemon: Start, hidden: Wire, grown: bool
) -> None:
    running = daemon(TRUNK)
    if grown:
        running.write(TRUNK + configuration(*(f"2001:db8:{n:x}::/64 static" for n in range(0x100, 0x200)), vlan="7"))
        assert verb(running, "reload").returncode == 0
        assert until(lambda: "the kernel maps have grown" in running.log)
    with Wire(topology) as wire:
        assert wire.ask(asked("2001:db8:1::9")) is not None
        assert wire.ask(asked("2001:db8:2::9", inside=True)) is not None
        assert set(ups(running).values()) == {1.0}

        assert hidden.ask(asked("2001:db8:2::9"), 0.3) is None
        assert until(lambda: set(ups(running).values()) == {0.0}), running.log
        line = (
            "wan0: tags of VLAN 100 stand beside the frames, where XDP can't see them; nothing untagged is answered"
            " there until they stand in the frames: on the other end of wan0, PEER there: ethtool -K PEER txvlan off"
        )
        assert says(running, line)
        assert verb(running, "status").stdout.startswith(f"not answering\n  {line}\n")
        assert healthz(running) == f"not answering\n{line}\n"

        # VLAN 100's question for what the untagged entry would answer
        assert hidden.ask(asked("2001:db8:1::9"), 0.3) is None
        assert wire.ask(asked("2001:db8:1::9"), 0.3) is None, "nobody can tell"
        answer = wire.ask(asked("2001:db8:2::9", inside=True))
        assert answer is not None, "such a tag is seen"
        assert answer[6:12] == EDGE

        assert until(lambda: set(ups(running).values()) == {1.0}, SEEMS_MENDED + 3), running.log
        assert until(lambda: "wan0: VLAN tags stand in the frames again; it answers" in running.log)
        assert wire.ask(asked("2001:db8:1::9")) is not None
        assert line not in verb(running, "status").stdout
    counted = running.solicitations("wan0")
    assert counted["monitored"] >= 2


def healthz(running: RunningDaemon) -> str:
    connection = http.client.HTTPConnection("::1", 9846, timeout=60)
    with running.topology.inside("edge"):
        connection.request("GET", "/healthz")
    body = connection.getresponse().read().decode()
    connection.close()
    return body


def test_tags_within_the_frames_silence_nothing_whatever_becomes_of_them(topology: Topology, daemon: Start) -> None:
    running = daemon(configuration("2001:db8:1::/64 ignore", "2001:db8:3::/64 static", **GENERIC))
    with Wire(topology) as wire:
        frame = question("2001:db8:1::9")
        for tags in (b"", *TAGS_MENU, b"", *TAGS_MENU):
            wire.send(frame[:12] + tags + frame[12:])
        assert wire.ask(asked("2001:db8:3::9")) is not None
    assert until(lambda: sum(running.solicitations().values()) > 2 * len(TAGS_MENU))
    assert ups(running) == {"wan0": 1.0}
    assert "beside the frames" not in running.log


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "with another one within"])
def test_questions_with_hidden_tags_that_no_rule_covers_are_enough(
    topology: Topology, daemon: Start, hidden: Wire, inside: bool
) -> None:
    """A single entry, which speaks for untagged frames. Of two tags, only the outer one can stand beside the frame."""
    running = daemon(configuration(**GENERIC))
    hidden.send(*[asked("2001:db8:9::9", inside=inside)] * 3)
    assert until(lambda: ups(running) == {"wan0": 0.0}), running.log
    with Wire(topology) as wire:
        assert wire.ask(asked("2001:db8:1::9"), 0.3) is None


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_who_traces_is_told_of_the_tag_that_stood_beside_the_frame(
    topology: Topology, daemon: Start, hidden: Wire, datapath: str
) -> None:
    running = daemon(TRUNK.replace('name = "wan0"', f'name = "wan0"\ndatapath = "{datapath}"'))
    with commanded(running, "--json", "--outcome", "monitored") as trace:
        hidden.send(asked("2001:db8:1::9"))
        assert trace.has(1)
        assert until(lambda: is_silenced(running)), running.log
        hidden.send(asked("2001:db8:1::9"))
        assert trace.has(2)
        assert trace.end() == {"seen": 2, "lost": 0, "counted": 2}
    for each in trace.objects():
        assert (each["target"], each["advertisement"]) == ("2001:db8:1::9", None)
        assert each["reason"] == ("a VLAN tag stood beside the frame, so that it may be another VLAN's (see the log)")


@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_on_a_port_with_vlans_not_even_the_first_question_is_answered_by_the_wrong_entry(
    topology: Topology, daemon: Start, hidden: Wire, datapath: str
) -> None:
    """VLAN 100's, for what the rules for untagged frames cover."""
    running = daemon(TRUNK.replace('name = "wan0"', f'name = "wan0"\ndatapath = "{datapath}"'))
    assert hidden.ask(asked("2001:db8:1::9"), 0.3) is None
    assert until(lambda: set(ups(running).values()) == {0.0}), running.log
    assert running.solicitations("wan0")["monitored"] == 1
    hidden.send(*[asked("2001:db8:1::9")] * 10)
    assert until(lambda: running.solicitations("wan0")["monitored"] == 11)


def test_once_a_tag_was_seen_within_a_frame_xdp_answers_untagged_questions_itself(
    topology: Topology, daemon: Start
) -> None:
    running = daemon(TRUNK)
    with Wire(topology) as wire:
        assert wire.ask(asked("2001:db8:1::9")) is not None
        assert until(lambda: running.solicitations("wan0").get("answered_python") == 1), "looked at first"
        assert wire.ask(asked("2001:db8:2::9", inside=True)) is not None

        def by_xdp() -> bool:
            assert wire.ask(asked("2001:db8:1::9")) is not None
            return running.solicitations("wan0").get("answered_xdp", 0) > 0

        assert until(by_xdp), running.solicitations("wan0")
    assert set(ups(running).values()) == {1.0}


def test_of_many_ports_each_is_listened_to_though_most_share_a_socket(topology: Topology, daemon: Start) -> None:
    count, upstream = 12, topology.name("upstream")
    for number in range(1, count):
        on_edge(
            topology,
            f"link add wan{number} type veth peer name up{number} netns {upstream}",
            f"link set wan{number} up",
        )
        topology.run("upstream", "ip", "link", "set", f"up{number}", "up", check=True)
    running = daemon(configuration(**GENERIC).replace("wan0", "wan*"))
    assert until(lambda: len(ups(running)) == count and set(ups(running).values()) == {1.0}), ups(running)
    for interface, port in (("eth0", "wan0"), (f"up{count - 1}", f"wan{count - 1}")):
        with tag_beside(topology, interface) as wire:
            wire.send(asked("2001:db8:9::9"))
            assert until(lambda port=port: ups(running)[port] == 0.0), running.log  # type: ignore[misc]
    assert sum(value == 0.0 for value in ups(running).values()) == 2


def test_whether_a_larger_program_takes_over_or_a_reload_fails_before_that_questions_are_answered(
    topology: Topology, daemon: Start
) -> None:
    """On a port with VLANs the tap hands up what looks untagged: it has to go with the program."""
    running = daemon(TRUNK)
    many = configuration(*(f"2001:db8:{n:x}::/64 static" for n in range(0x100, 0x200)), vlan="7")
    running.write(f'[daemon]\ncontrol = "/proc/nowhere/control.sock"\n{TRUNK}{many}')
    with Wire(topology) as wire:
        assert wire.ask(asked("2001:db8:1::9")) is not None
        assert verb(running, "reload").returncode != 0
        assert until(lambda: "the old configuration stays" in running.log)
        assert "the kernel maps have grown" not in running.log
        assert wire.ask(asked("2001:db8:1::9")) is not None
        running.write(f"{TRUNK}{many}")
        assert verb(running, "reload").returncode == 0
        assert until(lambda: "the kernel maps have grown" in running.log)
        assert wire.ask(asked("2001:db8:1::9")) is not None


def test_while_other_programs_take_over_each_question_that_is_looked_at_first_is_answered_and_counted(
    topology: Topology, daemon: Start
) -> None:
    """What a program holds for the tap, only the filter that came with it finds."""
    trunk = TRUNK.replace('name = "wan0"', 'name = "wan0"\nevents_per_source = 0')
    running = daemon(trunk)
    with flood(topology, scan(1_000_000), 1_000) as asking:
        for prefix in ("2001:db8:2", "2001:db8:3"):
            running.write(trunk + configuration(*(f"{prefix}:{n:x}::/64 static" for n in range(3_000)), vlan="7"))
            assert verb(running, "reload").returncode == 0
    assert says(running, "the kernel maps have grown"), "and the other time much is different"
    assert until(lambda: running.solicitations("wan0") == {"answered_python": asking.sent}), asking.sent


@pytest.mark.parametrize("vlan", ["", '"any"'], ids=["untagged", "any"])
@pytest.mark.parametrize("datapath", ["hybrid", "python"])
def test_after_any_other_frame_with_a_tag_the_next_question_is_looked_at(
    topology: Topology, daemon: Start, hidden: Wire, datapath: str, vlan: str
) -> None:
    """As who was answered sends to that address then: an ARP request stands for that."""
    name, answered = "wan0:any" if vlan else "wan0", f"answered_{'xdp' if datapath == 'hybrid' else 'python'}"
    running = daemon(configuration(datapath=f'"{datapath}"', **GENERIC, **({"vlan": vlan} if vlan else {})))
    with Wire(topology) as wire:
        for _ in range(3):
            assert wire.ask(asked("2001:db8:1::9")) is not None
    assert until(lambda: running.solicitations(name) == {answered: 3}), "nothing else is looked at where no tag is"
    hidden.send(b"\xff" * 6 + EDGE[:5] + b"\x77" + b"\x08\x06" + bytes(46))

    def is_silent() -> bool:
        hidden.send(asked("2001:db8:1::9"))
        return is_silenced(running)

    assert until(is_silent, 1), running.log
    before = running.solicitations(name)
    hidden.send(*[asked("2001:db8:1::9")] * 10)
    assert until(lambda: running.solicitations(name)["monitored"] == before["monitored"] + 10)
    assert running.solicitations(name)[answered] == before[answered]


def test_an_offload_that_is_switched_on_after_tags_stood_within_the_frames_is_noticed_within_a_second_or_two(
    topology: Topology, daemon: Start, hidden: Wire
) -> None:
    running = daemon(TRUNK)
    with Wire(topology) as wire:
        assert wire.ask(asked("2001:db8:2::9", inside=True)) is not None

        def by_xdp() -> bool:
            assert wire.ask(asked("2001:db8:1::9")) is not None
            return running.solicitations("wan0").get("answered_xdp", 0) > 0

        assert until(by_xdp), running.solicitations("wan0")

    def is_silent() -> bool:
        hidden.send(asked("2001:db8:1::9"))
        return is_silenced(running)

    assert until(is_silent, 1), running.log
    answered = running.solicitations("wan0")["answered_xdp"]
    hidden.send(*[asked("2001:db8:1::9")] * 10)
    assert until(lambda: running.solicitations("wan0").get("monitored", 0) > 10)
    assert running.solicitations("wan0")["answered_xdp"] == answered


def test_tags_of_other_vlans_within_the_frames_leave_a_port_answering(topology: Topology, daemon: Start) -> None:
    """One in about a second is looked at, and answered by Python."""
    running = daemon(configuration(**GENERIC))
    with Wire(topology) as wire:
        frame = asked("2001:db8:9::9", inside=True)
        wire.send(*[frame] * 10)
        for _ in range(20):
            assert wire.ask(asked("2001:db8:1::9")) is not None
    counted = running.solicitations("wan0")
    assert counted["answered_xdp"] >= 10
    assert counted["answered_xdp"] + counted.get("answered_python", 0) == 20
    assert ups(running) == {"wan0": 1.0}


def test_a_veth_in_native_mode_with_vlans_falls_silent_too(topology: Topology, daemon: Start, hidden: Wire) -> None:
    topology.xdp_pass("upstream", "eth0")  # what native XDP_TX over veth needs
    native = configuration(attach='"native"')
    trunk = native + configuration("2001:db8:2::/64 static", vlan="100", attach='"native"')
    running = daemon(native)
    with Wire(topology) as wire:
        assert until(lambda: wire.ask(asked("2001:db8:1::9")) is not None)
        running.write(trunk)
        assert verb(running, "reload").returncode == 0
        assert wire.ask(asked("2001:db8:1::9")) is not None
        hidden.send(asked("2001:db8:9::9"))  # no rule's: what is passed, the tap looks at
        assert until(lambda: is_silenced(running))
        assert wire.ask(asked("2001:db8:1::9"), 0.3) is None


def test_a_flood_with_tags_within_the_frames_silences_nothing(topology: Topology, daemon: Start) -> None:
    """A driver hands several frames on at once, and of so many some have one checksum, with a tag and without."""
    running = daemon(
        configuration(f"{STATIC}/64 static", attach='"native"')
        + configuration(f"{STATIC}/64 static", vlan="100", attach='"native"')
    )
    with Counter(topology, sample=1 << 20), generator(topology, 1975932625) as sender:
        sender.start(Order(500_000.0, 1.5))
        assert sender.finish().frames > 20_000
        assert until(lambda: running.solicitations("wan0:100").get("answered_xdp", 0) > 100)
    assert set(ups(running).values()) == {1.0}
    assert "beside" not in running.log
    assert "monitored" not in running.solicitations()


def test_a_trace_tells_what_became_of_what_was_held_for_its_hidden_tag(
    topology: Topology, daemon: Start, hidden: Wire
) -> None:
    running = daemon(TRUNK)
    with Trace(running) as trace:
        hidden.send(asked("2001:db8:1::9"))
        assert trace.has(1)
        assert trace.end() == (1, 0, 1)
    (line,) = trace.lines
    assert (line.frame, line.outcome, line.advertisement) == (asked("2001:db8:1::9"), Outcome.MONITORED, None)
