# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb `alerts`: the rules for Prometheus, as they are packaged or with links to a runbook that somebody serves."""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
RULES = (
    _PACKAGE / "rules" if (_PACKAGE / "rules").is_dir() else _PACKAGE.parent / "deploy/prometheus/rules"
) / "npd6-xdp.rules.yml"
"""Part of the package where it is installed, apart in a source tree: pyproject.toml maps the one to the other."""
DOCUMENT = "/usr/share/doc/npd6-xdp/docs/alerts.md"
"""What the rules name for who wants to read on: where the Debian package has it."""

_READ_ON = re.compile(rf"^ +See (\w+) in {re.escape(DOCUMENT)}\.$", re.MULTILINE)


def rules_text(runbooks: str | None = None) -> str:
    """The rules as YAML. With the address of a runbook, each alert has its paragraph there as `runbook_url`."""
    text = RULES.read_text()
    if not runbooks:
        return text
    return _READ_ON.sub(lambda found: f'          runbook_url: "{runbooks}#{anchor(found[1])}"', text)


def anchor(alert: str) -> str:
    """The anchor of an alert's paragraph, as GitHub, GitLab and others make it of a heading."""
    return alert.lower()
