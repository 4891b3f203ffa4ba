# SPDX-License-Identifier: GPL-2.0-or-later
"""The repository's files, whether git is there or not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import npd6_xdp

ROOT = Path(npd6_xdp.__file__).parents[1]
_MADE = {".coverage", "htmlcov", "build", "dist", "bench-results", "soak-results", "__pycache__"}
_NO_TEXT = {".svg", ".png", ".json", ".gz"}


@cache
def files() -> frozenset[str]:
    """Files and folders, by their paths."""
    return frozenset(str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if _is_ours(path.relative_to(ROOT)))


def _is_ours(path: Path) -> bool:
    hidden = [part for part in path.parts[:-1] if part.startswith(".") and part != ".ci"]
    return not hidden and not _MADE & set(path.parts) and not any(part.endswith(".egg-info") for part in path.parts)


def texts() -> list[Path]:
    """The files that somebody reads, but those samples that are npd6's and ndppd's."""
    paths = sorted(map(Path, files()))
    return [
        path for path in paths if (ROOT / path).is_file() and path.suffix not in _NO_TEXT and path.suffix != ".conf"
    ]
