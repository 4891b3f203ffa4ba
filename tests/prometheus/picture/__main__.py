# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws docs/dashboard.png: the dashboard's panels, each from what a real Prometheus answers to its queries, by
Grafana's components (@grafana/ui). It is no Grafana, so the picture is near to what that shows, and not the same.

    deploy/dashboard-picture.sh [--seconds 330] [--output docs/dashboard.png] [--keep DIRECTORY]

That installs what is missing. --keep leaves the page in a directory, and the picture, too, if that isn't taken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.arguments import positive
from tests.netns.browser import Page, browser
from tests.netns.wire import until
from tests.prometheus.files import ROOT
from tests.prometheus.picture.answers import SCRAPES, Answers, empty, zeros
from tests.prometheus.picture.traffic import Ground, live
from tests.prometheus.server import EACH_SECOND, Prometheus

HERE = Path(__file__).parent
INSTALLED = ROOT / ".venv/picture/node_modules"  # by deploy/dashboard-picture.sh
FONTS = Path("/usr/share/fonts/opentype/inter")  # Debian's fonts-inter
WIDTH = 1600  # pixels
LARGEST = 400_000  # bytes of the picture

_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>npd6-xdp</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="page.css">
<body style="margin: 0"><div id="root"></div>
<script>window.BOARD = %s</script>
<script src="page.js"></script>
"""


class Fault(Exception):
    """What is wrong with the dashboard or its picture, in a line."""


def node(script: str, *arguments: Path) -> None:
    """Runs one of the scripts beside this file. Raises Fault with what it says."""
    argv = ["node", str(HERE / script), *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Fault(f"{script}: {(done.stderr or done.stdout).strip()}")


def bundled(directory: Path) -> None:
    """page.js and page.css, and beside them what the components load: icons, and fonts of this machine's."""
    node("bundle.mjs", HERE / "page.jsx", INSTALLED, directory)
    fonts = directory / "public/fonts/inter"
    fonts.mkdir(parents=True, exist_ok=True)
    links = {directory / "public/build": INSTALLED / "@grafana/ui/dist/public"}
    links |= {fonts / f"{font.stem}.woff2": font for font in FONTS.glob("Inter-*.otf")}
    for link, target in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def met(running: RunningDaemon) -> set[str]:
    """The outcomes that solicitations have had, on whichever interface."""
    samples = running.metrics().items()
    return {dict(labels)["outcome"] for (name, labels), n in samples if name == "npd6_solicitations_total" and n}


def asked(topology: Topology, seconds: float) -> dict[str, Any]:
    """What panels show after so long with all that happens in it."""
    ground = Ground(topology)
    with ground.daemon() as running, Prometheus(topology, instead=EACH_SECOND) as prometheus:
        if not until(lambda: bool(prometheus.query("npd6_build_info")), 15.0):
            raise Fault(f"Prometheus scrapes nothing: {prometheus.last_scrape()[1]}")
        time.sleep(5 * SCRAPES)  # so that the first moment has a rate
        start = float(round(time.time()))  # whole steps, as Grafana asks
        live(ground, running, seconds)
        if none := set(Outcome) - met(running):
            raise Fault(f"no solicitation had the outcome {', '.join(sorted(none))}")
        return Answers(prometheus, start, float(int(time.time()))).board()


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(topology: Topology, directory: Path) -> Iterator[str]:
    """A directory's files by HTTP in the edge, at the address that is yielded: icons are asked for only so."""
    with topology.inside("edge"):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def drawn(topology: Topology, directory: Path, picture: Path) -> None:
    """Has a browser draw the page, writes the picture, and looks at what was drawn."""
    with (
        tempfile.TemporaryDirectory() as profile,
        served(topology, directory) as address,
        browser(topology, Path(profile)) as page,
    ):
        page.resize(WIDTH)
        page.open(f"{address}page.html")
        if not until(lambda: bool(page.run("return window.DRAWN || window.FAULTS?.length")), 20.0):
            raise Fault(f"the page was never drawn: {'; '.join(page.complaints()) or 'the browser says nothing'}")
        page.screenshot(picture)
        node("smaller.mjs", INSTALLED, picture)
        judge(page, address)


def judge(page: Page, address: str) -> None:
    """Raises Fault for an error in the browser, a panel without anything in it, or one that is wider than its place."""
    if complaints := [*page.run("return window.FAULTS"), *page.complaints()]:
        raise Fault(f"an error in the browser: {complaints[0]}")
    if foreign := {url for url in page.requested() if not url.startswith((address, "blob:"))}:
        raise Fault(f"the page has asked the network for {min(foreign)}")
    panels = page.run("return window.panels()")
    if blank := [panel["title"] for panel in panels if panel["blank"]]:
        raise Fault(f"nothing is drawn in: {', '.join(blank)}")
    if wide := [panel["title"] for panel in panels if panel["wide"]]:
        raise Fault(f"wider than its place: {', '.join(wide)}")
    if cut := [f"{panel['title']} ({panel['cut'][0]})" for panel in panels if panel["cut"]]:
        raise Fault(f"cut short: {', '.join(cut)}")
    if page.run("return document.documentElement.scrollWidth > innerWidth"):
        raise Fault("the page is wider than the window")
    print(f"picture: {len(panels)} panels are drawn")


def picture(seconds: float, output: Path, keep: Path | None) -> None:
    """All of it. Raises Fault and MachineError."""
    with ExitStack() as stack:
        directory = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        bundled(directory)
        topology = stack.enter_context(Topology())
        print(f"picture: looking on for {seconds:.0f} s", flush=True)
        board = asked(topology, seconds)
        (directory / "page.html").write_text(_PAGE % json.dumps(board).replace("</", "<\\/"))
        if none := empty(board):
            raise Fault(f"no data for: {', '.join(none)}")
        print(f"picture: nothing but zeros in: {', '.join(zeros(board)) or 'none'}")
        new = directory / "dashboard.png"
        drawn(topology, directory, new)
        if (size := new.stat().st_size) > LARGEST:
            raise Fault(f"the picture has {size:,} bytes, more than {LARGEST:,}")
        shutil.copyfile(new, output)
        print(f"picture: {output} has {size:,} bytes")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive, default=330, help="how long to look on (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/dashboard.png")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="where to leave the page")
    arguments = parser.parse_args()
    try:
        picture(arguments.seconds, arguments.output, arguments.keep)
    except (Fault, MachineError) as error:
        sys.exit(f"picture: {error}")
    except KeyboardInterrupt:  # by any signal that ends
        sys.exit("picture: stopped")


if __name__ == "__main__":
    main()
