# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs scenes on the kernel that is here, one daemon for all: python -m tests.kernels [--all] [SCENE...]

The scene `recipes` is pages of docs/recipes, each with a daemon of its own. Without --all, what this kernel has no
devices for is left out. Exit status: 0 if all checks held, 1 if one failed, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from npd6_xdp.lab.daemon import StartError
from npd6_xdp.lab.topology import Topology
from tests import recipes
from tests.kernels.anchors import Anchors
from tests.kernels.auto_moves import AutoMoves
from tests.kernels.bond import Bonds
from tests.kernels.by_tc import ByTc
from tests.kernels.dispatcher import Dispatcher
from tests.kernels.doctor import Doctored
from tests.kernels.drivers import Drivers
from tests.kernels.ground import Ground
from tests.kernels.growth import Growth
from tests.kernels.lacp import Lacp
from tests.kernels.machine import WALKED, Kind, loaded, walked
from tests.kernels.many import Many
from tests.kernels.scene import Scene
from tests.kernels.smoke import Smoke
from tests.kernels.snooping import Snooping
from tests.kernels.stations import Stations
from tests.kernels.team import Teams
from tests.kernels.tunnels import Tunnels
from tests.kernels.vlan import Vlans
from tests.kernels.vlan_device import VlanDevices
from tests.kernels.vlan_trace import TracedVlans
from tests.kernels.vrf import Vrfs
from tests.kernels.vrf_moves import VrfMoves
from tests.kernels.wireguard import WireGuard

SCENES: Mapping[str, type[Scene]] = {
    "smoke": Smoke,
    "bond": Bonds,
    "lacp": Lacp,
    "team": Teams,
    "vlan": Vlans,
    "vlan-device": VlanDevices,
    "vlan-trace": TracedVlans,
    "vrf": Vrfs,
    "vrf-moves": VrfMoves,
    "tunnels": Tunnels,
    "wireguard": WireGuard,
    "stations": Stations,
    "snooping": Snooping,
    "anchors": Anchors,
    "tc": ByTc,
    "auto-moves": AutoMoves,
    "dispatcher": Dispatcher,
    "doctor": Doctored,
    "drivers": Drivers,
    "growth": Growth,
    "many": Many,
}

RECIPES = "recipes"
NAMES = (*SCENES, RECIPES)
BY_NAME = ("dispatcher", "doctor", "drivers", "growth", "many")
"""Scenes that run only where they are named: they take cards that only QEMU has, a kernel that lets one program extend
another, or minutes, or set the clock.
"""
PAGES = ("bond", "vrf", "vlan-trunk")
"""The recipes that take devices which many kernels lack; tests/netns/test_recipes.py has the others."""
_PAGE_START = 900.0  # seconds for a daemon's start where the processor is emulated


Result = TypeVar("Result")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("--all", action="store_true", help="a kind of device that this kernel lacks is a failure")
    parser.add_argument("--list", action="store_true", help="only say which scenes there are")
    parser.add_argument(
        "scenes", nargs="*", metavar="SCENE", help=f"of {', '.join(NAMES)}; without, all but {', '.join(BY_NAME)}"
    )
    arguments = parser.parse_args(argv)
    if unknown := [name for name in arguments.scenes if name not in NAMES]:
        print(f"kernels: {unknown[0]}: no such scene; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    wanted = arguments.scenes or [name for name in NAMES if name not in BY_NAME]
    if arguments.list:
        print("\n".join(wanted))
        return 0
    failed = 0
    if scenes := [name for name in wanted if name != RECIPES]:
        with Topology() as topology:
            failed |= run(Ground(topology, must=arguments.all), scenes)
    if RECIPES in wanted:
        failed |= follow(must=arguments.all)
    return failed


def run(ground: Ground, names: Sequence[str]) -> int:
    """Run scenes to their end. What one of them raises is its failure, and the others go on."""
    began = time.monotonic()
    print(f"Linux {os.uname().release}: {', '.join(names)}", flush=True)
    scenes: dict[str, Scene] = {}
    configuration = ""
    begins("build")
    for name in names:
        scene = SCENES[name](ground)
        ground.scene = name
        if not all(ground.may(kind) for kind in scene.kinds):
            continue
        text = guarded(ground, scene.build)
        if text is not None:
            scenes[name], configuration = scene, configuration + text
    if scenes:
        print(f"        built in {time.monotonic() - began:.1f} s", flush=True)
        since = time.monotonic()
        begins("start")
        try:
            ground.start(configuration)
        except StartError as error:
            ground.fail("the daemon's start", f"{error}\n{error.log}")
            return 1
        print(f"        the daemon is ready after {time.monotonic() - since:.1f} s", flush=True)
        ground.scene = "start"
        guarded(ground, lambda: easy(ground))
        for name, scene in scenes.items():
            since = time.monotonic()
            ground.scene = name
            begins(name)
            guarded(ground, scene.check)
            print(f"        {name} took {time.monotonic() - since:.1f} s", flush=True)
        if isinstance(smoke := scenes.get("smoke"), Smoke):
            ground.scene = "growth"
            begins("growth")
            guarded(ground, smoke.grow)
            guarded(ground, lambda: easy(ground))
            for name, scene in scenes.items():
                ground.scene = name
                guarded(ground, scene.after_growth)
        ground.scene = "end"
        begins("end")
        guarded(ground, lambda: end(ground))
        if ground.failed:
            print(f"--- what the daemon said:\n{ground.daemon.log}---", flush=True)
    print(f"{ground.failed} failed, in {time.monotonic() - began:.1f} s", flush=True)
    return bool(ground.failed)


def begins(what: str) -> None:
    """Say what the next lines are of; deploy/kernels.sh --ci shows these alone."""
    print(f"begins  {what}", flush=True)


def follow(*, must: bool) -> int:
    """Do what pages of docs/recipes say, and compare with what they promise; `must`: a lack of devices is a failure."""
    failed = 0
    for name in PAGES:
        scene, since = recipes.SCENES[name], time.monotonic()
        if recipes.has(scene.needs):
            with Topology() as topology:
                wrong = recipes.run(topology, name, timeout=_PAGE_START, patience=30.0).wrong(scene)
        elif must:
            wrong = [f"this kernel has no {scene.needs}"]
        else:
            continue
        print(
            f"{'FAILED' if wrong else 'ok    '}  recipes: {name}: {'; '.join(wrong) or 'as the page says'}", flush=True
        )
        print(f"        {name}.md took {time.monotonic() - since:.1f} s", flush=True)
        failed += bool(wrong)
    return int(bool(failed))


def guarded(ground: Ground, step: Callable[[], Result]) -> Result | None:
    """Run a step; what it raises is written down as a failure, and None comes back."""
    try:
        return step()
    except Exception:
        ground.fail("an exception", traceback.format_exc())
        return None


def easy(ground: Ground) -> None:
    """Look at how much of the program the verifier walked: it gives up at a million instructions. The function for
    tc is loaded also where this kernel has no links for it.
    """
    functions = dict.fromkeys(Kind, 0)
    for number, kind in loaded(ground.daemon.process.pid):
        functions[kind] = max(functions[kind], walked(number))
    told = " and ".join(f"{most} for {kind.name}" for kind, most in functions.items())
    ground.check(
        f"the verifier walked {told}, of {WALKED} instructions at most",
        all(0 < most <= WALKED for most in functions.values()),
    )


def end(ground: Ground) -> None:
    """Have the daemon end, and look for what it left behind."""
    ground.check("the daemon ends with status 0", ground.daemon.stop(60.0), 0)
    ground.check("nothing is left behind", ground.traces(), [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
