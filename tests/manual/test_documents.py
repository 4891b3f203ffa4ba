# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written around the code: links lead somewhere, commands are such, all is under the licence that it says."""

from __future__ import annotations

import hashlib
import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import npd6_xdp
from npd6_xdp.cli import argument_parser
from npd6_xdp.core.config_file import parse

ROOT = Path(npd6_xdp.__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
BY_NAME = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "``", FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of their words."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ +(.*)", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def test_a_heading_with_code_and_signs_has_the_anchor_that_its_words_make(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`, three!\n\n```sh\n# no heading\n```\n\n## Same\n\n## Same\n\n[it](#same-1)\n")
    assert anchors(page) == {"one-two-three", "same", "same-1"}
    assert links(page) == ["#same-1"]


@BY_NAME
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    for link in links(page):
        if re.match("https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@BY_NAME
def test_forwarding_is_spoken_of_together_with_what_keeps_the_default_route(page: Path) -> None:
    """With forwarding on, the kernel takes no router advertisement's default route unless accept_ra is 2."""
    text = page.read_text()
    assert not re.search(r"forwarding *= *1", text) or "accept_ra" in text


def test_every_page_is_found_from_the_readme() -> None:
    """Or from an index that the README leads to."""
    linked = {ROOT / "README.md"}
    for page in (ROOT / "README.md", ROOT / "docs/recipes/README.md"):
        linked |= {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}
    assert [page for page in PAGES if page not in linked and page.parent != ROOT / "deploy"] == []


@BY_NAME
def test_every_command_in_it_is_one(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _, _, block in FENCE.findall(page.read_text()):
        for line in block.splitlines():
            command = re.match(r"\s*(?:[a-z]*# |\$ |sudo )*(?:\S*/)?npd6-xdp ([a-z-].*)", line)
            if command is None or re.match(r"\d", command[1]):
                continue
            words = shlex.split(re.split(r"\s(?:[|;&]|\d?>)|\s#", command[1])[0])
            try:
                argument_parser().parse_args(words)
            except SystemExit as end:
                assert end.code == 0, f"{line}\n{capsys.readouterr().err}"  # noqa: PT017


@BY_NAME
def test_every_configuration_in_it_is_right(page: Path) -> None:
    for _, kind, block in FENCE.findall(page.read_text()):
        if kind == "toml" and "[[interface]]" in block:
            assert parse(block, page.name).interfaces


# --- The licence ---

GPL_2 = "29aca396a145fe071fdbe77a984128ac894c96731cff188c4f9c24c251641bd8"
SOURCES = (".py", ".c", ".h", ".sh", ".toml", ".yml", ".service", ".conf", ".html", ".rb", "Vagrantfile", "run")
NOT_OURS = {".git", ".vagrant", ".venv", ".venv-core", "build", "dist", "bench-results", "__pycache__"}


def sources() -> list[Path]:
    found = []
    for path in ROOT.rglob("*"):
        inner = path.relative_to(ROOT)
        sample = inner.parent in (Path("tests/tools/convert"), Path("tests/netns/ndppd"))  # as npd6 and ndppd read them
        if path.is_file() and path.name.endswith(SOURCES) and not sample and not NOT_OURS & set(inner.parts):
            found.append(path)
    return found


def test_every_source_names_its_licence_at_its_top() -> None:
    line = re.compile(r"^(<!--|#|//|/\*) SPDX-License-Identifier: GPL-2.0-or-later", re.MULTILINE)
    assert len(sources()) > 100
    without = [path for path in sources() if not line.search("\n".join(path.read_text().splitlines()[:3]))]
    assert without == []


def test_the_licence_is_the_gpls_second_version() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert hashlib.sha256(" ".join(text.split()).encode()).hexdigest() == GPL_2
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "GPL-2.0-or-later"


def test_the_changelog_has_a_place_for_what_is_to_come_and_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([^]]+)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert npd6_xdp.__version__ in text
    assert set(re.findall(r"^### (.*)", text, re.MULTILINE)) <= {
        *("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"),
    }
