# SPDX-License-Identifier: GPL-2.0-or-later
"""What a contributor runs is there: make's targets, those that pages and hooks name, and tests without pytest-xdist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.manual.tree import ROOT, texts

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def targets() -> set[str]:
    (line,) = re.findall(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(line.split())


@needs_make
def test_make_lists_all_that_it_can_do() -> None:
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in done.stdout.splitlines()} == targets()
    assert all(len(line) < 120 for line in done.stdout.splitlines())


@needs_make
@pytest.mark.parametrize("target", sorted(targets()))
def test_every_target_can_be_read(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_target_that_a_page_names_is_one() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {target for words in re.findall(r"`make ([a-z -]+)[`T]", text) for target in words.split()}
    assert named <= targets()
    assert {"test-core", "types", "style", "docs", "bench-quick", "coverage"} <= named


def test_the_hooks_fetch_nothing_and_run_what_make_has() -> None:
    (own,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert own["repo"] == "local"
    for hook in own["hooks"]:
        assert hook["language"] == "system", hook
        command, option, target = hook["entry"].split()
        assert (command, option) == ("make", "--no-print-directory"), hook
        assert target in targets(), hook


def test_tests_run_one_by_one_where_there_is_no_xdist() -> None:
    hidden = "import sys; sys.modules['xdist'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    words = [sys.executable, "-c", hidden, "-q", "-p", "no:cacheprovider", "tests/core/test_prefix.py"]
    done = subprocess.run(words, cwd=ROOT, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_what_an_editor_is_told_holds() -> None:
    """Two of the rules of .editorconfig, that tools for other than Python don't look at."""
    for path in texts():
        text = (ROOT / path).read_text()
        assert not text or text.endswith("\n"), path
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), path
