# SPDX-License-Identifier: GPL-2.0-or-later
"""Markdown, as far as the documentation's generators write and read it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

_WIDTH = 78
_CODE_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})
_INDENT = "    "


def words(values: Iterable[object]) -> str:
    """`one`, `two`, `three`"""
    return ", ".join(f"`{value}`" for value in values)


def table(*rows: tuple[str, ...]) -> str:
    """Rows as Markdown, the first of them the head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join((head, "|---" * len(rows[0]) + "|", *body))


def without_links(markdown: str) -> str:
    """[text](target) as text."""
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", markdown)


def roff(markdown: str) -> str:
    """A page of Markdown in the language of man(7).

    It reads headings (## and ###), paragraphs, definitions (a line, and one below it that begins with ": "), code
    (indented by four), `code` and *emphasis*.
    """
    lines: list[str] = []
    after_heading = True
    for block in re.split(r"\n\n+", markdown.strip("\n")):
        if block.startswith("#"):
            level, _, title = block.partition(" ")
            lines.append(f'.S{"H" if level == "##" else "S"} "{_inline(title)}"')
            after_heading = True
            continue
        if block.startswith(_INDENT):
            lines += _code(block)
        elif "\n: " in block:
            term, _, text = block.partition("\n: ")
            text, code, rest = text.partition(f"\n{_INDENT}")
            lines += [".TP", _inline(term), *_paragraph(text)]
            if code:
                lines += _code(_INDENT + rest)
        else:
            lines += [*([] if after_heading else [".PP"]), *_paragraph(block)]
        after_heading = False
    return "\n".join(lines) + "\n"


def _code(block: str) -> Iterator[str]:
    yield ".RS 4"
    yield ".EX"
    for line in block.splitlines():
        yield _guarded(line.removeprefix(_INDENT).translate(_CODE_ESCAPES))
    yield ".EE"
    yield ".RE"


def _paragraph(text: str) -> Iterator[str]:
    """Each sentence on a line of its own, as man(7) wants it, and long ones on several."""
    for sentence in re.split(r"(?<=[.:?])\s+(?=[A-Z`*])", " ".join(text.split())):
        for line in textwrap.wrap(_inline(sentence), _WIDTH, break_long_words=False, break_on_hyphens=False):
            yield _guarded(line)


def _guarded(line: str) -> str:
    """A line that begins like a request isn't one."""
    return rf"\&{line}" if line.startswith((".", "'")) else line


def _code_words(code: str) -> str:
    """Words as they are, never hyphenated."""
    return re.sub(r"\S{7,}", lambda word: rf"\%{word[0]}", code.translate(_CODE_ESCAPES))


def _inline(markdown: str) -> str:
    """Code in bold, emphasis in italics."""
    found = []
    for part in re.split(r"(`[^`]+`|\*[^*\s][^*]*\*)", without_links(markdown)):
        if part.startswith("`"):
            found.append(rf"\fB{_code_words(part.strip('`'))}\fR")
        elif part.startswith("*") and len(part) > 1:
            found.append(rf"\fI{part.strip('*').translate(_CODE_ESCAPES)}\fR")
        else:
            found.append(part.replace("\\", r"\e"))
    return "".join(found)
