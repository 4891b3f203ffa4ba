# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever file of the repository a comment, a docstring, a page or a message names is there."""

from __future__ import annotations

import ast
import io
import posixpath
import re
import tokenize
from pathlib import Path, PurePosixPath

import pytest

from tests.manual.tree import ROOT, files, texts

TOP = r"(?:bpf|deploy|docs|npd6_xdp|tests|\.ci)"
ROOTED = re.compile(rf"(?<![\w/.$}}>*-])(?:\./|\.\./)*({TOP}(?:/[\w.-]+)+)(?![\w/*{{<])")
"""From the repository's top on: a file or a folder, wherever it stands."""
NAMED = re.compile(r"(?<![\w/.~$}{<>*-])((?:\./|\.\./)*\w[\w.-]*(?:/[\w.-]+)*\.(?:md|py|c|h|sh|rb))(?![\w/*-])")
"""A source or a page, by its name or some of its path: in words, not in code."""
HEADING = re.compile(r"([\w./-]+\.md), \"([^\"]+)\"")
"""A page and what stands in it."""

FOREIGN = re.compile(
    r"(linux|net|drivers)/.*"  # the kernel's
    r"|(malloc|bpf|helpers)\.h"  # the C library's, bcc's
    r"|(config|exparser)\.c"  # npd6's
    r"|(table|profile|report)\.md"  # what the benchmark and the soak write
)
PLACES = ("", "npd6_xdp", "tests", "docs", "deploy", "deploy/prometheus", "tests/bench")
"""Where a path in words may begin, besides the folder of the file that names it."""


def words(path: str, text: str) -> str:
    """What of a file is for people: all of a page, the comments and docstrings of a source."""
    suffix = PurePosixPath(path).suffix
    if suffix == ".md":
        return text
    if suffix == ".py":
        comments = [
            token.string
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type == tokenize.COMMENT
        ]
        strings = [
            node.value.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ]
        return "\n".join(comments + strings)
    if suffix in {".c", ".h"}:
        return "\n".join(re.findall(r"/\*.*?\*/|//[^\n]*", text, re.DOTALL))
    return "\n".join(re.findall(r"(?:^|\s)#[^\n]*", text))


def is_there(name: str, by: str) -> bool:
    """Whether a file that names another one so can mean one of the repository."""
    places = (*PLACES, posixpath.dirname(by))
    return any(posixpath.normpath(posixpath.join(place, name)) in files() for place in places) or (
        "/" not in name and any(known.endswith(f"/{name}") for known in files())
    )


def missing(by: str, text: str) -> list[str]:
    """What a file names that isn't there."""
    inner = words(by, text)
    named = {name for name in NAMED.findall(inner) if not FOREIGN.fullmatch(name)}
    named = {name for name in named if not ROOTED.fullmatch(name)} | {name.rstrip(".") for name in ROOTED.findall(text)}
    placeholders = {name for name in named if re.search(r"\b(NAME|FILE|DIR)\b", name)}
    gone = [name for name in sorted(named - placeholders) if not is_there(name, by)]
    for page, heading in HEADING.findall(" ".join(inner.split())):
        found = [known for known in files() if known == page or known.endswith(f"/{page}")]
        if found and heading.rstrip(".,") not in " ".join((ROOT / found[0]).read_text().split()):
            gone.append(f'{page}, "{heading}"')
    return gone


@pytest.mark.parametrize("path", [path for path in texts() if ROOT / path != Path(__file__)], ids=str)
def test_every_file_that_is_named_is_there(path: Path) -> None:
    assert missing(str(path), (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("by", "text", "gone"),
    [
        ("npd6_xdp/core/a.py", '"""As DESIGN.md says."""', ["DESIGN.md"]),
        ("npd6_xdp/core/a.py", "x = 1  # RFC.md B8, core/icmpv6.py, test_icmpv6.py", ["RFC.md"]),
        ("npd6_xdp/core/a.py", 'x = "bad.md"  # in code, a name may be any', []),
        ("npd6_xdp/core/a.py", 'x = "mend tests/fuzz/mutant.py"', ["tests/fuzz/mutant.py"]),
        ("npd6_xdp/core/a.py", "'''linux/if_link.h, tests/netns, tests/nets'''", ["tests/nets"]),
        ("npd6_xdp/core/a.py", '"""docs/rules.md, "A. Which solicitations", "x". docs/rules.md, "Z"."""', None),
        ("bpf/a.c", "/* system/bpf/ns_filter.py and\n * core/gone.py */ x = y.h;", ["core/gone.py"]),
        ("deploy/a.sh", 'cd "$here/docs/x"\n# see docs/gone.md\n"$PWD/tests/x"', ["docs/gone.md"]),
        (
            "docs/a.md",
            "[it](../bpf/ns_filter.c), `tests/*/test_icmpv6.py`, [no](../bpf/no.c)",
            ["bpf/no.c"],
        ),
    ],
)
def test_what_is_not_there_is_found(by: str, text: str, gone: list[str] | None) -> None:
    assert missing(by, text) == (['docs/rules.md, "Z"'] if gone is None else gone)
