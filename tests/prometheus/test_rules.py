# SPDX-License-Identifier: GPL-2.0-or-later
"""The scrape configuration, the recording rules and the alerts, by promtool and against the documentation."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.prometheus.files import (
    BINARIES,
    CASES,
    FAMILIES,
    OPERATION,
    PROMETHEUS,
    ROOT,
    RULES,
    alerts,
    families,
    recorded,
)

ALERTS = alerts()


@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", str(PROMETHEUS / "prometheus.yml")),
        ("check", "rules", "--lint=all", "--lint-fatal", str(RULES)),
        ("test", "rules", str(CASES)),
    ],
    ids=["config", "rules", "cases"],
)
def test_promtool_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    done = subprocess.run([BINARIES / "promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for group in yaml.safe_load(CASES.read_text())["tests"]:
        for case in group["alert_rule_test"]:
            (fires if case.get("exp_alerts") else silent).add(case["alertname"])
    assert fires == silent == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_what_to_do_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    file, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert anchor in anchors((ROOT / file).read_text())


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_manual_has_a_line_for_each_alert_with_its_severity() -> None:
    lines = re.findall(r"^\| `(Npd6\w+)` \| (\w+) \|", OPERATION.read_text(), re.MULTILINE)
    assert dict(lines) == {name: alert["labels"]["severity"] for name, alert in ALERTS.items()}


def test_rules_ask_for_nothing_that_the_daemon_does_not_have() -> None:
    known = set(FAMILIES) | set(recorded())
    for expression in (*recorded().values(), *(alert["expr"] for alert in ALERTS.values())):
        assert families(expression) <= known


def test_all_that_is_recorded_is_used() -> None:
    used = [families(alert["expr"]) for alert in ALERTS.values()]
    used += [families(expression) - {name} for name, expression in recorded().items()]
    assert set(recorded()) <= set().union(*used)
