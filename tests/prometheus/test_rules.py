# SPDX-License-Identifier: GPL-2.0-or-later
"""The scrape configuration, the recording rules and the alerts, by promtool and against the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from npd6_xdp.core.judgement import KINDS, MANY_REFUSED, NEARLY_FULL, WINDOW
from npd6_xdp.tools.alerts import DOCUMENT, anchor
from tests.prometheus.files import (
    BINARIES,
    CASES,
    FAMILIES,
    PROMETHEUS,
    ROOT,
    RULES,
    RUNBOOK,
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
    assert set(alert["annotations"]) == {"summary", "description"}
    assert alert["annotations"]["description"].endswith(f". See {name} in {DOCUMENT}.")


def test_the_runbook_has_a_paragraph_for_each_alert_and_a_line_with_its_severity() -> None:
    text = RUNBOOK.read_text()
    paragraphs = dict(re.findall(r"^## (Npd6\w+)\n\n(.+?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(paragraphs) == list(ALERTS)
    assert min(map(len, paragraphs.values())) > 100
    lines = re.findall(r"^\| \[`(Npd6\w+)`\]\(#(\w+)\) \| (\w+) \|", text, re.MULTILINE)
    assert lines == [(name, anchor(name), alert["labels"]["severity"]) for name, alert in ALERTS.items()]


def test_the_runbook_names_the_problems_that_each_alert_is_about_and_none_is_without_one() -> None:
    told = re.findall(r"^\| \[`Npd6\w+`\].*\|([^|]*)\|$", RUNBOOK.read_text(), re.MULTILINE)
    assert len(told) == len(ALERTS)
    assert {kind for cell in told for kind in re.findall(r"`(\w+)`", cell)} == {*map(str, KINDS)}


@pytest.mark.parametrize(
    ("name", "threshold"),
    [
        ("Npd6TableNearlyFull", f" > {NEARLY_FULL}"),
        ("Npd6RateLimited", f"[{WINDOW / 60:.0f}m]) > {MANY_REFUSED / WINDOW:g}"),
        *((name, f"[{WINDOW / 60:.0f}m]) > 0") for name in ("Npd6EventsLost", "Npd6SendFailed", "Npd6AnswersDropped")),
        *((name, f"[{WINDOW / 60:.0f}m]) > 0") for name in ("Npd6InternalError", "Npd6LogDropped")),
    ],
)
def test_an_alert_has_the_judgements_own_threshold_and_window(name: str, threshold: str) -> None:
    assert ALERTS[name]["expr"].endswith(threshold)


def printed(*words: str) -> subprocess.CompletedProcess[str]:
    """What `npd6-xdp alerts` makes of these words."""
    argv = [sys.executable, "-m", "npd6_xdp", "alerts", *words]
    return subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_command_prints_the_rules_as_they_are() -> None:
    assert printed().stdout == RULES.read_text()


@pytest.mark.parametrize(
    "url", ["https://wiki.example/npd6-xdp/alerts", "http://[2001:db8::1]:8080/a%20b?page=alerts.md"]
)
def test_with_an_address_each_alert_links_to_its_paragraph_there(url: str, tmp_path: Path) -> None:
    done = printed("--runbooks", url)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = yaml.safe_load(RULES.read_text())
    for group in wanted["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                texts = rule["annotations"]
                texts["description"] = texts["description"].removesuffix(f" See {rule['alert']} in {DOCUMENT}.")
                texts["runbook_url"] = f"{url}#{rule['alert'].lower()}"
    # how a folded text ends depends on what follows it
    assert yaml.safe_load(done.stdout) == wanted
    (tmp_path / "rules.yml").write_text(done.stdout)
    words = ("check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yml"))
    checked = subprocess.run([BINARIES / "promtool", *words], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "url",
    ["docs/alerts.md", "ftp://a/b", "https://a/b#c", 'https://a/"', "https://a/{{b}}", "https://a b", "https://a\n"],
)
def test_what_no_link_can_be_made_of_is_one_line_of_status_2(url: str) -> None:
    done = printed("--runbooks", url)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("npd6-xdp: alerts: argument --runbooks: ")
    assert "is not the address of a page" in done.stderr


def test_rules_ask_for_nothing_that_the_daemon_does_not_have() -> None:
    known = set(FAMILIES) | set(recorded())
    for expression in (*recorded().values(), *(alert["expr"] for alert in ALERTS.values())):
        assert families(expression) <= known


def test_all_that_is_recorded_is_used() -> None:
    used = [families(alert["expr"]) for alert in ALERTS.values()]
    used += [families(expression) - {name} for name, expression in recorded().items()]
    assert set(recorded()) <= set().union(*used)
