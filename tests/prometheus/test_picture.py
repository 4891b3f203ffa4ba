# SPDX-License-Identifier: GPL-2.0-or-later
"""What deploy/dashboard-picture.sh draws by, as far as it can be looked at without drawing, which takes minutes."""

from __future__ import annotations

import json
import re

from tests.prometheus.files import ROOT, panels
from tests.prometheus.picture.__main__ import HERE, LARGEST
from tests.prometheus.picture.answers import empty, zeros


def test_each_kind_of_panel_can_be_drawn() -> None:
    (kinds,) = re.findall(r"^const KINDS = {(.*)};$", (HERE / "page.jsx").read_text(), re.MULTILINE)
    assert {panel["type"] for panel in panels()} == set(re.findall(r"'?([\w-]+)'?: ", kinds))


def test_it_is_drawn_by_the_grafana_whose_types_the_dashboard_is_checked_by() -> None:
    drawn, checked = (json.loads((HERE / path).read_text()) for path in ("package.json", "../schema/package.json"))
    of_grafana = {version for name, version in drawn["devDependencies"].items() if name.startswith("@grafana/")}
    assert of_grafana == {checked["devDependencies"]["@grafana/schema"]}


def test_a_panel_without_a_number_is_told_and_so_is_one_of_zeros() -> None:
    def answers(*numbers: float | None) -> list[dict[str, object]]:
        return [{"series": [{"metric": {}, "values": [(0.0, number) for number in numbers]}]}]

    titles = ("none asked", "no series", "no number", "zeros", "numbers")
    board = {
        "dashboard": {"panels": [{"id": number, "title": title} for number, title in enumerate(titles)]},
        "answers": {0: [], 1: [{"series": []}], 2: answers(None), 3: answers(0.0, None, 0.0), 4: answers(0.0, 1.0)},
    }
    assert empty(board) == ["none asked", "no series", "no number"]
    assert zeros(board) == ["zeros"]


def test_the_picture_is_small_enough_for_the_repository() -> None:
    assert (ROOT / "docs/dashboard.png").stat().st_size <= LARGEST
