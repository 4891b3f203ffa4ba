# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard and its provisioning files, read as Grafana would; test_live.py asks a Prometheus their questions."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import yaml

from tests.prometheus.files import FAMILIES, GRAFANA, OPERATION, alerts, dashboard, families, panels, queries, recorded


def test_every_metric_of_the_daemon_is_used_by_a_panel_or_an_alert() -> None:
    through = recorded()
    shown = set().union(*(families(expression) for _, expression in queries()))
    told = set().union(*(families(alert["expr"]) for alert in alerts().values()))
    used = shown | told
    for name in list(used & set(through)):
        used |= families(through[name])
    assert set(FAMILIES) <= used


def test_panels_ask_for_nothing_that_there_is_not() -> None:
    for title, expression in queries():
        unknown = families(expression) - set(FAMILIES) - set(recorded())
        assert {name for name in unknown if not name.startswith("process_")} == set(), title


def test_panels_have_a_title_and_a_data_source_of_the_readers_choice_and_numbers_of_their_own() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["title"]
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(numbers)) == len(numbers)
    titles = [panel["title"] for panel in dashboard()["panels"]]
    assert len(set(titles)) == len(titles)


def test_no_panel_covers_another_or_leaves_the_page() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in combinations(places, 2) if _overlap(*pair)]


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def test_the_rows_are_overview_interfaces_rules_and_process() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Per interface", "Per rule", "Process"]


def test_it_can_be_narrowed_down_to_instances_and_interfaces() -> None:
    variables: dict[str, dict[str, Any]] = {each["name"]: each for each in dashboard()["templating"]["list"]}
    assert set(variables) == {"datasource", "instance", "interface"}
    for name in ("instance", "interface"):
        assert variables[name]["multi"]
        assert variables[name]["includeAll"]
    of_all = {"Alerts"}
    for title, expression in queries():
        assert 'instance=~"$instance"' in expression or title.split(",")[0] in of_all, title


def test_what_provisions_grafana_is_where_the_manual_puts_it() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/npd6-xdp.yml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://[::1]:9090", True)
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/npd6-xdp.yml").read_text())["providers"]
    assert provider["type"] == "file"
    manual = OPERATION.read_text()
    assert f"deploy/grafana/npd6-xdp.json {provider['options']['path']}/npd6-xdp.json" in manual
    assert "deploy/grafana/provisioning/. /etc/grafana/provisioning/" in manual
