# SPDX-License-Identifier: GPL-2.0-or-later
"""The dashboard, panels and all, is of the types that Grafana's own @grafana/schema has for it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.prometheus.files import ROOT, dashboard

SCHEMA = Path(__file__).parent / "schema"
INSTALLED = ROOT / ".venv/grafana/node_modules"  # by deploy/setup.sh
OPTIONS = {
    "strict": True,
    "noEmit": True,
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "skipLibCheck": True,  # what it doesn't use needs packages that aren't here
    "preserveSymlinks": True,
    "types": [],
}

pytestmark = pytest.mark.skipif(
    not INSTALLED.is_dir(),
    reason="@grafana/schema isn't there: deploy/setup.sh --test installs it, where there is npm (nodejs)",
)


def written(board: Mapping[str, Any]) -> str:
    """TypeScript that has each part of a dashboard as a constant of its type; a panel's name has its id."""
    rest = {key: value for key, value in board.items() if key not in ("annotations", "panels", "templating")}
    parts = {
        "frame: Frame": rest,
        "annotations: Annotations": board["annotations"]["list"],
        "variables: Variables": board["templating"]["list"],
    } | {f"panel{panel['id']}: Panels[{json.dumps(panel['type'])}]": panel for panel in board["panels"]}
    lines = ["import type { Annotations, Frame, Panels, Variables } from './types';"]
    return "\n".join([*lines, *(f"export const {name} = {json.dumps(value)};" for name, value in parts.items())])


def mistakes(board: Mapping[str, Any], where: Path) -> dict[str, str]:
    """What the compiler says, by the constants that it is about."""
    (where / "node_modules").symlink_to(INSTALLED)
    shutil.copy(SCHEMA / "types.ts", where)
    text = written(board)
    (where / "board.ts").write_text(text)
    (where / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": ["board.ts"]}))
    argv = ["node", str(INSTALLED / "typescript/bin/tsc"), "--pretty", "false", "-p", str(where)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=where, check=False)
    found = {}
    for file, line, said in re.findall(r"^(\S+?)\((\d+),\d+\): error (.*)", done.stdout, re.MULTILINE):
        assert file == "board.ts", done.stdout
        name = re.match(r"export const (\w+)", text.splitlines()[int(line) - 1])
        assert name is not None
        found[name[1]] = said
    assert bool(done.returncode) == bool(found), done.stdout + done.stderr
    return found


def test_the_dashboard_is_what_the_schema_says(tmp_path: Path) -> None:
    assert mistakes(dashboard(), tmp_path) == {}


def test_it_is_of_todays_version() -> None:
    text = (INSTALLED / "@grafana/schema/dist/esm/raw/dashboard/x/types.gen.mjs").read_text()
    version = re.search(r"schemaVersion: (\d+)", text)
    assert version is not None
    assert dashboard()["schemaVersion"] == int(version[1])


def test_what_is_versioned_is_what_is_installed() -> None:
    for name, version in json.loads((SCHEMA / "package.json").read_text())["devDependencies"].items():
        assert json.loads((INSTALLED / name / "package.json").read_text())["version"] == version


def test_a_mistake_in_any_part_is_found(tmp_path: Path) -> None:
    board = deepcopy(dashboard())
    of: dict[str, list[dict[str, Any]]] = {}
    for panel in board["panels"]:
        of.setdefault(panel["type"], []).append(panel)
    board["graphToolTip"] = 1
    board["annotations"]["list"][0]["useValueForTime"] = "yes"
    board["templating"]["list"][1]["sort"] = "up"
    (one, two, three, four), spoilt = of["timeseries"][:4], ["frame", "annotations", "variables"]
    one["options"]["legend"]["placement"] = "left"
    two["fieldConfig"]["defaults"]["custom"]["linewidth"] = 1
    three["targets"][0]["format"] = "graph"
    four["fieldConfig"]["defaults"]["thresholds"] = {"mode": "relative", "steps": []}
    of["stat"][0]["options"]["colourMode"] = "value"
    of["table"][0]["options"]["cellHeight"] = 3
    of["state-timeline"][0]["options"]["mergeValues"] = "always"
    of["row"][0]["colapsed"] = True
    panels = (one, two, three, four, *(of[kind][0] for kind in ("stat", "table", "state-timeline", "row")))
    assert set(mistakes(board, tmp_path)) == {*spoilt, *(f"panel{panel['id']}" for panel in panels)}
