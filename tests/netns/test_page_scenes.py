# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that takes pictures of the page in each state tells what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from npd6_xdp.lab.daemon import RunningDaemon
from npd6_xdp.lab.topology import Topology
from tests.netns.browser import Page
from tests.netns.page_scenes import AXE, SCENES, faults
from tests.netns.test_page import needs_browser
from tests.netns.wire import configuration

SPOILT = """
const add = (to, style) => Object.assign(to.appendChild(document.createElement("div")).style, style);
add(document.body, { width: "700px", height: "9000px" });
add(document.body, { width: "50px", overflow: "hidden" });
document.body.lastChild.id = "cut";
add(document.body.lastChild, { width: "90px", height: "1px" });
document.body.append(document.createElement("input"));
setTimeout(() => { throw new Error("spoilt"); });
"""


@needs_browser
@pytest.mark.skipif(not AXE.exists(), reason="no axe-core here, which npm fetches: deploy/setup.sh --test")
def test_what_is_wrong_with_a_picture_is_told(
    topology: Topology, daemon: Callable[..., RunningDaemon], page: Page
) -> None:
    scenes = {scene.name: scene for scene in SCENES}
    daemon(configuration())
    page.open()
    page.resize(390)
    assert faults(page, scenes["1-rule"], 390) == []
    page.run(SPOILT)
    found = "\n".join(faults(page, scenes["stopped"], 390))
    for fault in (
        "the head says working, not not answering",
        "nothing is at .gone",
        "pixels wide, and scrolls sideways",
        "pixels tall, over 8000",
        "cut is cut off",
        "Uncaught Error: spoilt",
        "axe-core finds label: ['body > input']",
    ):
        assert fault in found
