# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor beside a daemon whose program isn't where, or isn't as, it could be: each state is made for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.doctor.finding import Finding, Level
from tests.netns.doctoring import Doctor, of
from tests.netns.others import at_tc
from tests.netns.test_auto import TAP, Tap, on_tap, sits
from tests.netns.test_doctor import Scene
from tests.netns.test_taken_away import force_off
from tests.netns.wire import Wire, configuration, paused, question, scan, until

Start = Callable[..., RunningDaemon]

RULE = "2001:db8:1::/64 static"


@pytest.fixture
def doctor(topology: Topology) -> Iterator[Doctor]:
    with Doctor(topology) as found:
        yield found


def graves(scene: Scene, *checks: str) -> list[Finding]:
    return [each for check in checks for each in of(scene.look(), check)]


def test_generic_mode_where_native_is_possible_is_told_and_a_reload_ends_it(
    topology: Topology, daemon: Start, doctor: Doctor
) -> None:
    with closing(Tap(topology)):
        scene = Scene(topology, daemon(on_tap(attach='"generic"')), doctor)
        assert sits(topology) == ("generic", 0)
        assert graves(scene, "attached", "native", "file") == [], "it is as the file has it"
        scene.running.write(on_tap())
        slower, changed = graves(scene, "attached", "native", "file")
        assert (slower.check, slower.level) == ("attached", Level.NOTE)
        assert slower.message == f"{TAP}: in generic mode, which is slower"
        assert (changed.check, changed.level) == ("file", Level.WARN)
        scene.sh(*changed.mend)
        assert until(lambda: sits(topology) == ("native", 0))
        assert graves(scene, "attached", "native", "file") == []


@pytest.mark.parametrize(("mode", "check"), [("generic", "xdp"), ("native", "xdp"), ("tc", "tc")])
def test_a_program_that_the_daemon_still_takes_for_attached_is_told_to_be_gone_and_a_reload_puts_it_back(
    topology: Topology, daemon: Start, doctor: Doctor, mode: str, check: str
) -> None:
    """The daemon sees it within a second, so it is taken off anew until doctor has been faster."""
    scene = Scene(topology, daemon(configuration(RULE, attach=f'"{mode}"')), doctor)
    assert of(scene.look(), check) == []
    found: list[Finding] = []

    def is_told() -> bool:
        with paused(scene.running):
            force_off(scene.running)
            assert topology.attach_mode("edge", "wan0") is None
        found[:] = graves(scene, check)
        return bool(found)

    assert until(is_told)
    (gone,) = found
    assert gone.level is Level.WARN
    assert gone.message.startswith("wan0: the daemon has it as attached, and its program isn't there")
    scene.sh(*gone.mend)
    assert topology.attach_mode("edge", "wan0") == mode
    assert graves(scene, check, "attached") == []


def test_a_port_whose_place_another_program_has_taken_is_told_with_what_sits_beside_that(
    topology: Topology, daemon: Start, doctor: Doctor
) -> None:
    scene = Scene(topology, daemon(configuration(RULE, attach='"generic"')), doctor)
    with paused(scene.running):
        force_off(scene.running)
        scene.sh("$PYTHON -m tests.netns.doctoring wan0 left")
    assert until(lambda: bool(of(scene.look(), "attached")))
    (without,) = of(scene.look(), "attached")
    assert without.level is Level.FAIL
    assert without.message.startswith("wan0: the daemon's program isn't on it; its log (")
    (other,) = of(scene.look(), "xdp")
    assert other.level is Level.FAIL
    assert "another XDP program sits there (xdpgeneric, id " in other.message
    assert other.message.endswith('attach = "auto" would sit beside it, by tc')
    scene.sh(*other.mend)
    assert until(lambda: at_tc(topology) == ["ns_filter_tc"])
    assert topology.xdp_mode("edge", "wan0") == "generic", "the other one is left alone"
    assert until(lambda: graves(scene, "attached", "file") == [])
    (beside,) = of(scene.look(), "xdp")
    assert beside.level is Level.NOTE
    assert "which has each frame before tc" in beside.message


def test_a_rule_under_which_nothing_is_answered_is_noted_beside_one_that_answers(
    topology: Topology, daemon: Start, doctor: Doctor
) -> None:
    running = daemon(configuration("2001:db8:1::/64 static", "2001:db8:4::/64 route"))
    with Wire(topology) as wire:
        assert wire.ask(question("2001:db8:1::42")) is not None
        wire.send(*scan(60, "2001:db8:4::"))
        assert until(lambda: running.solicitations().get("absent", 0) == 60)
        (found,) = of(doctor.look(running.config_file, running.control), "unanswered")
        assert found.level is Level.NOTE
        assert "nothing was answered under wan0 2001:db8:4::/64 (60 solicitations): `npd6-xdp trace" in found.message
