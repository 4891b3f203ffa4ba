# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor finds nothing in the way where a page of docs/recipes is followed: what works is no fault."""

from __future__ import annotations

import pytest

from npd6_xdp.lab.topology import Topology
from npd6_xdp.tools.doctor.finding import Level
from tests.netns.doctoring import Doctor
from tests.recipes import SCENES, built, has

HERE = [name for name, scene in SCENES.items() if has(scene.needs)]


@pytest.mark.parametrize("name", HERE)
def test_a_page_s_place_has_nothing_in_the_way(topology: Topology, name: str) -> None:
    with built(topology, name) as (_, its), Doctor(topology) as doctor:
        file = topology.directory / "npd6-xdp.toml"
        file.write_text(its.configuration)
        grave = [each for each in doctor.look(file) if each.level in (Level.WARN, Level.FAIL)]
    warned = SCENES[name].warned
    shared = "neighbour_table"  # by all namespaces
    assert [each for each in grave if each.check != shared and (not warned or warned not in each.message)] == []
