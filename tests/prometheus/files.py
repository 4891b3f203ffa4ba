# SPDX-License-Identifier: GPL-2.0-or-later
"""What deploy/prometheus and deploy/grafana hold, read once for all tests here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from docs.metrics import EXAMPLE
from npd6_xdp.system.http.metrics import SnapshotCollector

ROOT = Path(__file__).resolve().parents[2]
BINARIES = ROOT / ".venv/peers/usr/bin"  # where deploy/setup.sh unpacks Debian's package
PROMETHEUS = ROOT / "deploy/prometheus"
GRAFANA = ROOT / "deploy/grafana"
RULES = PROMETHEUS / "rules/npd6-xdp.rules.yml"
CASES = PROMETHEUS / "tests/npd6-xdp.test.yml"
OPERATION = ROOT / "docs/operation.md"
RUNBOOK = ROOT / "docs/alerts.md"

FAMILIES = {family.name: family for family in SnapshotCollector(lambda: EXAMPLE).collect()}

_NAME = re.compile(r"\b(?:\w+:)?npd6_\w+(?::\w+)?|\bprocess_\w+")


def rules() -> list[dict[str, Any]]:
    """All rules, recording ones and alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts, by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> dict[str, str]:
    """What is recorded: {name: expression}."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads((GRAFANA / "npd6-xdp.json").read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Each query of each panel, with the panel's title and its letter."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']}, {target['refId']}", target["expr"]


def marks() -> Iterator[tuple[str, str]]:
    """The query of each annotation, with its name."""
    for each in dashboard()["annotations"]["list"]:
        yield each["name"], each["expr"]


def substituted(expression: str, rate_interval: str, span: str, **variables: str) -> str:
    """A query as Grafana sends it: a value in a regular expression is escaped, the backslashes for PromQL, too.
    `rate_interval` and `span` (the time that is shown) are durations of PromQL's.
    """
    for name, value in variables.items():
        escaped = value if value == ".+" else re.sub(r"([\\^$.*+?()[\]{}|])", r"\\\\\1", value)
        expression = expression.replace(f"${name}", escaped)
    return expression.replace("$__rate_interval", rate_interval).replace("$__range", span)


def families(expression: str) -> set[str]:
    """The families of the daemon's metrics, and the recorded series, that an expression names."""
    found = set()
    for name in _NAME.findall(expression):
        short = re.sub(r"_(total|bucket|sum|count)$", "", name)
        found.add(short if short in FAMILIES else name)
    return found
