# SPDX-License-Identifier: GPL-2.0-or-later
"""The status page as it looks in each state a daemon can be in, of real daemons: pictures, and what is wrong with them.

Each scene has a topology, a daemon and a browser of its own. Each is looked at on a phone and a desk, light and dark.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.browser import Page, browser
from tests.netns.wire import Wire, configuration, flood, on_edge, scan

AXE = Path(__file__).resolve().parents[2] / ".venv/axe/node_modules/axe-core/axe.min.js"
HEIGHTS = {390: 8_000, 1120: 6_500}
"""The widths of a phone and a desk, and the tallest that a page may be there, whatever it shows: all in CSS pixels."""

_PER_SECOND = 60
_SECONDS = 12.0  # of traffic, before a picture is taken

_CUT_OFF = """
return [...document.querySelectorAll('body *')].filter((each) => {
  const style = getComputedStyle(each);
  return style.overflowX === 'hidden' && each.clientWidth > 1 && each.scrollWidth > each.clientWidth + 1;
}).map((each) => each.id || each.className);
"""


@dataclass(frozen=True)
class Stage:
    """Where a scene plays: the page is open, and the daemon has been started. `stack` ends what the scene begins."""

    topology: Topology
    running: RunningDaemon
    page: Page
    stack: ExitStack
    again: Callable[[], RunningDaemon]


@dataclass(frozen=True)
class Scene:
    """A state of the daemon's: what the page's head says then, and what brings it about."""

    name: str
    headline: str
    config: str
    play: Callable[[Stage], None]
    shows: str
    """A selector of what is there in this scene, and not in others."""
    gone: bool = False
    """Whether the page misses the daemon for a while, of which the browser's console tells."""


def _rules(many: int) -> str:
    return configuration(*(f"2001:db8:{1 + n // 65536:x}:{n % 65536:x}::/64 static" for n in range(many)))


def _traffic(stage: Stage) -> None:
    """Most of it is for the first rules, and some for none."""
    asked = [*scan(40, "2001:db8:1:0::"), *scan(20, "2001:db8:1:1::"), *scan(3, "2001:db8:99::")]
    stage.stack.enter_context(flood(stage.topology, cycle(asked), _PER_SECOND))
    time.sleep(_SECONDS)


def _nothing(stage: Stage) -> None:
    time.sleep(3.0)


def _stops(stage: Stage) -> None:
    with flood(stage.topology, cycle(scan(40, "2001:db8:1:0::")), _PER_SECOND):
        time.sleep(_SECONDS)
    stage.running.stop()
    assert stage.page.becomes(lambda: stage.page.has(".gone"), 15.0)


def _restarts(stage: Stage) -> None:
    _traffic(stage)
    stage.running.stop()
    assert stage.page.becomes(lambda: stage.page.has(".gone"), 15.0)
    time.sleep(5.0)
    stage.again()
    time.sleep(_SECONDS)


def _is_degraded(stage: Stage) -> None:
    """A failed reload, an interface that is down, and a sysctl that is off, under traffic that is refused, too."""
    stage.topology.sysctl("edge", "net/ipv6/conf/all/forwarding", 0)
    on_edge(stage.topology, "link set lan0 down")
    stage.running.write(f"nonsense = 1\n{_DEGRADED}")
    assert stage.running.command("reload").returncode == 1
    with Wire(stage.topology) as wire:
        wire.send(*(frame[:-1] + b"\0" for frame in scan(20, "2001:db8:1::")), *scan(200, "2001:db8:2::"))
    _traffic(stage)


_ON_LAN = configuration("2001:db8:f::/64 static").replace("wan0", "lan0")
_DEGRADED = f"""[limits]
pending = 64  # for which there is space in the kernel's table on any machine
{configuration("2001:db8:1::/64 route", "2001:db8:2::/64 neighbour via=lan0")}{_ON_LAN}"""
SCENES = (
    Scene("0-rules", "not answering", configuration().replace("wan0", "ppp*"), _nothing, "#notes li"),
    Scene("no-interface", "not answering", configuration().replace("wan0", "ens3"), _nothing, "#notes li"),
    Scene("1-rule", "working", _rules(1), _traffic, "#rules tr:only-child"),
    Scene("50-rules", "working", _rules(50), _traffic, "#rules tr:nth-child(25)"),
    Scene("4000-rules", "working", _rules(4_000), _traffic, "#rules-pages:not([hidden])"),
    Scene("stopped", "not answering", _rules(5), _stops, ".gone", gone=True),
    Scene("restarted", "working", _rules(5), _restarts, "#plot rect.gap", gone=True),
    Scene("warnings", "degraded: 3 problems", _DEGRADED, _is_degraded, "#notes li:nth-child(3)"),
)


def faults(page: Page, scene: Scene, width: int) -> list[str]:
    """What is wrong with the page as it is shown now, `width` CSS pixels wide."""
    found = []
    if (head := page.text("#state span")) != scene.headline:
        found.append(f"the head says {head}, not {scene.headline}")
    if not page.has(scene.shows):
        found.append(f"nothing is at {scene.shows}")
    across, tall = page.run("const root = document.scrollingElement; return [root.scrollWidth, root.scrollHeight]")
    if across > width:
        found.append(f"it is {across} pixels wide, and scrolls sideways")
    if tall > HEIGHTS[width]:
        found.append(f"it is {tall} pixels tall, over {HEIGHTS[width]}")
    found += [f"{each} is cut off" for each in page.run(_CUT_OFF)]
    found += [f"the console says: {line}" for line in page.complaints() if not (scene.gone and "net::ERR_" in line)]
    return found + [f"axe-core finds {each}" for each in page.axe(AXE.read_text())]


def play(scene: Scene, directory: Path) -> Iterator[tuple[Path, list[str]]]:
    """Play a scene, and take its pictures into a directory: yields each, with what is wrong with it."""
    with ExitStack() as stack:
        topology = stack.enter_context(Topology())

        def start() -> RunningDaemon:
            environment = {"RUNTIME_DIRECTORY": str(topology.directory)}
            return stack.enter_context(RunningDaemon(topology, scene.config, environment=environment))

        running = start()
        profile = stack.enter_context(tempfile.TemporaryDirectory())
        page = stack.enter_context(browser(topology, Path(profile)))
        page.open()
        scene.play(Stage(topology, running, page, stack, start))
        for scheme in ("light", "dark"):
            page.prefer(scheme)
            for width in HEIGHTS:
                page.resize(width)
                time.sleep(1.5)  # rows and charts are drawn anew once a second
                found = faults(page, scene, width)
                picture = directory / f"{scene.name}-{width}-{scheme}.png"
                page.screenshot(picture)
                yield picture, found


def take(directory: Path, only: str = "") -> bool:
    """Play all scenes (or one, by its name) and print a line for each picture; whether nothing is wrong with any."""
    directory.mkdir(parents=True, exist_ok=True)
    well = True
    for scene in SCENES:
        if only in ("", scene.name):
            for picture, found in play(scene, directory):
                well = well and not found
                print("\n    ".join((f"{picture.name}: {'wrong' if found else 'well'}", *found)), flush=True)
    return well
