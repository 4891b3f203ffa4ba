# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the wheel and the sdist: setuptools, and what those before 77 (Debian 12's, Ubuntu 24.04's) need besides.

pyproject.toml has the licence as PEP 639 wants it, an SPDX expression; they know it as a table only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import setuptools
from setuptools.build_meta import *  # noqa: F403

FIRST_WITH_EXPRESSIONS = 77


def as_a_table(document: dict[str, Any]) -> dict[str, Any]:
    """pyproject.toml's content, the licence in the form of before."""
    project = document.get("project", {})
    if isinstance(project.get("license"), str):
        project["license"] = {"text": project["license"]}
    return document


if int(setuptools.__version__.partition(".")[0]) < FIRST_WITH_EXPRESSIONS:
    from setuptools.config import pyprojecttoml

    _load_file = pyprojecttoml.load_file

    def _load_older(path: Path) -> dict[str, Any]:
        return as_a_table(_load_file(path))

    pyprojecttoml.load_file = _load_older
