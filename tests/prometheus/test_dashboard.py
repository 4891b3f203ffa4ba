# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard and its provisioning files, read as Grafana would; test_live.py asks a Prometheus their questions."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import yaml

from npd6_xdp.core.verdict import Outcome
from tests.prometheus.files import (
    FAMILIES,
    GRAFANA,
    OPERATION,
    alerts,
    dashboard,
    families,
    marks,
    panels,
    queries,
    recorded,
)


def test_every_metric_of_the_daemon_is_used_by_a_panel_or_an_alert() -> None:
    through = recorded()
    shown = set().union(*(families(expression) for _, expression in (*queries(), *marks())))
    told = set().union(*(families(alert["expr"]) for alert in alerts().values()))
    used = shown | told
    for name in list(used & set(through)):
        used |= families(through[name])
    assert set(FAMILIES) <= used


def test_provisioning_takes_nobodys_place() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/npd6-xdp.yml").read_text())["datasources"]
    assert "isDefault" not in source, "what is the default is up to whoever runs Grafana"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/npd6-xdp.yml").read_text())["providers"]
    assert all("npd6-xdp" in name for name in (source["name"], source["uid"], provider["name"], dashboard()["uid"]))


def test_panels_ask_for_nothing_that_there_is_not_and_need_no_recording_rules() -> None:
    for title, expression in (*queries(), *marks()):
        unknown = families(expression) - set(FAMILIES)
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


def test_every_panel_is_described() -> None:
    assert [panel["title"] for panel in panels() if len(panel.get("description", "")) < 10] == []


def test_panels_say_so_where_there_is_no_daemon() -> None:
    (daemons,) = (panel for panel in panels() if panel["title"] == "Daemons")
    assert daemons["targets"][0]["expr"].endswith(" or vector(0)")
    none, some = daemons["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert (none, some) == ({"color": "red", "value": None}, {"color": "green", "value": 1})


def links_of(panel: dict[str, Any]) -> list[tuple[str, bool]]:
    """Where the links of a panel lead, and whether each is one of its series."""
    whole, series = panel.get("links", []), panel["fieldConfig"]["defaults"].get("links", [])
    return [(link["url"], False) for link in whole] + [(link["url"], True) for link in series]


def test_links_lead_from_the_overview_to_interfaces_and_from_these_to_rules() -> None:
    row, rows, titles = "", {}, {panel["id"]: panel["title"] for panel in panels()}
    for panel in dashboard()["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        rows[panel["title"]] = row
    led = set()
    for panel in panels():
        for url, of_series in links_of(panel):
            path, _, question = url.partition("?")
            assert path == f"/d/{dashboard()['uid']}/npd6-xdp"
            assert "${datasource:queryparam}" in question, "else another Prometheus may be asked"
            number = re.search(r"&viewPanel=(\d+)$", question)
            assert number is not None
            led.add((rows[panel["title"]], rows[titles[int(number[1])]]))
            of_one = "var-instance=${__field.labels.instance}&var-interface=${__field.labels.interface}" in question
            assert of_one == of_series
            grouped = all("sum by (instance, interface)" in target["expr"] for target in panel["targets"])
            assert grouped or not of_series, "its series have both labels"
    assert {("Overview", "Per interface"), ("Per interface", "Per rule")} <= led


def test_restarts_and_reloads_are_marked() -> None:
    marks = {each["name"]: each for each in dashboard()["annotations"]["list"]}
    assert set(marks) == {"Restarts", "Reloads", "Failed reloads"}
    assert all(mark["enable"] and mark["datasource"]["uid"] == "${datasource}" for mark in marks.values())


def by_title(title: str) -> dict[str, Any]:
    (found,) = (panel for panel in panels() if panel["title"] == title)
    return found


def colors_of(panel: dict[str, Any]) -> dict[str, str]:
    """The colours that a panel's series have by name."""
    return {
        each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"]
        for each in panel["fieldConfig"]["overrides"]
        if each["properties"][0]["id"] == "color"
    }


def test_each_outcome_has_a_colour_of_its_own() -> None:
    colors = colors_of(by_title("Outcomes"))
    assert set(colors) == set(Outcome)
    assert len(set(colors.values())) == len(colors)
    paths = colors_of(by_title("Answers by path"))
    assert paths == {"xdp": colors[Outcome.ANSWERED_XDP], "python": colors[Outcome.ANSWERED_PYTHON]}


def test_what_is_counted_by_the_second_has_that_unit() -> None:
    units = {}
    for panel in panels():
        for target in panel["targets"]:
            if re.fullmatch(r"[^/*]*\brate\(npd6_\w+_total\b[^/*]*", target["expr"]):
                units[panel["title"]] = panel["fieldConfig"]["defaults"]["unit"]
    assert len(units) > 5
    assert {title: unit for title, unit in units.items() if unit != "cps"} == {}


def test_an_interface_on_standby_has_no_share_nor_has_one_that_nobody_asks() -> None:
    for title in ("Share answered", "Share of solicitations that is answered"):
        (target,) = by_title(title)["targets"]
        assert "unless on (instance, interface) npd6_interface_active == 0" in target["expr"]
        assert re.search(r" / \(sum\b[^/]* > 0\)", target["expr"]), "else it is 0 / 0, which is shown as NaN"


def test_tables_begin_with_whose_row_it_is_or_with_what_matters_most() -> None:
    first = {
        panel["title"]: min(each["options"]["indexByName"], key=each["options"]["indexByName"].get)
        for panel in panels()
        if panel["type"] == "table"
        for each in panel["transformations"]
        if each["id"] == "organize"
    }
    assert first.pop("Alerts") == "alertstate"
    assert len(first) == 3
    assert set(first.values()) == {"instance"}


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
    for title, expression in (*queries(), *marks()):
        assert 'instance=~"$instance"' in expression or title.split(",")[0] in of_all, title


def test_what_provisions_grafana_is_where_the_manual_puts_it() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/npd6-xdp.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://[::1]:9090")
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/npd6-xdp.yml").read_text())["providers"]
    assert provider["type"] == "file"
    manual = OPERATION.read_text()
    assert f"deploy/grafana/npd6-xdp.json {provider['options']['path']}/npd6-xdp.json" in manual
    assert "deploy/grafana/provisioning/. /etc/grafana/provisioning/" in manual
