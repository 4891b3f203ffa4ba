# SPDX-License-Identifier: GPL-2.0-or-later
"""When a line is for systemd's journal, and what it looks like then. tests/package has the journal itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from npd6_xdp.tools import journal


def test_an_error_has_its_priority_only_where_the_journal_reads(tmp_path: Path) -> None:
    words = (sys.executable, "-m", "npd6_xdp", "check", "--config", str(tmp_path / "none.toml"))
    with (tmp_path / "stderr").open("w+") as stderr:
        there = os.fstat(stderr.fileno())
        for stream in (f"{there.st_dev}:{there.st_ino}", f"{there.st_dev}:1", None):
            environment = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
            if stream:
                environment["JOURNAL_STREAM"] = stream
            subprocess.run(words, env=environment, stderr=stderr, check=False)
        stderr.seek(0)
        heard = stderr.read().splitlines()
    assert [line.partition("npd6-xdp: ")[0] for line in heard] == ["<3>", "", ""]


def test_each_line_has_the_priority_of_its_level() -> None:
    assert journal.prefixed("a\nb", 40) == "<3>a\n<3>b"
    assert [journal.prefixed("a", level) for level in (50, 30, 20, 10)] == ["<3>a", "<4>a", "<6>a", "<7>a"]
