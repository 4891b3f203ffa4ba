# SPDX-License-Identifier: GPL-2.0-or-later
"""A former program out of git, and what is done without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import former
from tests.bench.former import unpacked
from tests.bench.subjects import HYBRID


def test_a_commit_that_is_not_there_has_no_tree() -> None:
    with unpacked("f" * 40) as tree:
        assert tree is None


def test_a_commit_that_is_there_has_its_own_program_for_so_long() -> None:
    with unpacked() as tree:
        if tree is None:
            pytest.skip("this clone has no such commit")
        assert {path.name for path in tree.iterdir()} == {"bpf", "npd6_xdp"}
        assert "int ns_filter(" in (tree / "bpf" / "ns_filter.c").read_text()
    assert not tree.exists()


def test_a_subject_of_a_former_program_is_asked_the_same_as_the_one_of_now(tmp_path: Path) -> None:
    assert former.subject(tmp_path).questions == HYBRID.questions
