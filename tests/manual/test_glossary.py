# SPDX-License-Identifier: GPL-2.0-or-later
"""The glossary of docs/architecture.md: each of its words stands where it says, and none that they have replaced."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from npd6_xdp.core import layout
from tests.manual.tree import ROOT, texts

ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|([^|]*)\|([^|]*)\|$", re.MULTILINE)
PYTHON = ("npd6_xdp/**/*.py",)
C = ("bpf/*.[ch]",)
OURS = ("npd6_xdp/**/*.py", "tests/**/*.py", "docs/*.py", "deploy/*.py", "bpf/*.[ch]", "tests/**/*.[ch]")

GONE = {
    "slot": "entry",
    "slots": "entries",
    "crowding": "refused askers",
    "dues": "timers, or times",
    "ailing": "judgement",
    "unhealthy": "judgement",
    "homeless": "unanswered",
}
"""Parts of names that are gone, and what is said instead."""

GONE_WHOLE = {
    "DatapathKind": "Datapath",
    "FRAME_ROOM": "FRAME_SPACE",
    "Following": "Tracking",
    "GroupKey": "ViaSetKey",
    "KnownFlag": "PresentFlag",
    "NO_GROUP": "NO_VIA_SET",
    "Proxies": "ProxyEntries",
    "TableRoom": "TableSpace",
    "ViaGroups": "ViaSets",
    "group_of": "via_set_of",
    "has_room": "has_space",
    "has_room_for": "has_space_for",
    "heard_sources": "heard_addresses",
    "is_want_of_room": "is_used_up",
    "kinds_of_rules": "flags_of_rules",
    "known_flag": "present_flag",
    "known_targets": "present_targets",
    "least_room": "nearest_limit",
    "line_key": "exact_key in C, match_key in Python",
    "make_room": "drop, or what else makes space",
    "map_room": "map_capacity",
    "prefix_key": "trie_key",
    "recents": "recent_targets",
    "resolving_full": "pending_full",
    "room_for_pending": "capacity_for_pending",
    "running_peers": "other_daemons",
    "source_key": "mac_key",
    "tell_kinds": "tell_flags",
}
"""Names that are gone as a whole, and the names instead."""

GONE_PHRASES = (
    *("for want of", "graver", "homeless", "lest ", "wants to hear", "ailing "),
    *("has room for", "make room there", "no room left", "no longer so"),
)
"""What a network engineer would stop at, in whatever is read."""


def rows() -> dict[str, tuple[str, str, list[str], list[str]]]:
    """Each term: what it is, where it is from, and its identifiers in C and in Python."""
    _, found, text = (ROOT / "docs/architecture.md").read_text().partition("## Glossary\n")
    assert found
    table = ROW.findall(text[: text.index("\n## ")])[1:]
    words = re.compile(r"`(\w+)`")
    return {term: (what, origin, words.findall(c), words.findall(python)) for term, what, origin, c, python in table}


@cache
def written(*places: str) -> str:
    """All that stands in files."""
    return "\n".join(path.read_text() for place in places for path in sorted(ROOT.glob(place)))


@cache
def names(path: Path) -> frozenset[str]:
    """The identifiers of a file that aren't keywords of somebody else's functions."""
    text = path.read_text()
    if path.suffix != ".py":
        return frozenset(
            re.findall(r"[A-Za-z_]\w*", re.sub(r'/\*.*?\*/|//[^\n]*|"[^"\n]*"', "", text, flags=re.DOTALL))
        )
    found: set[str] = {path.stem}
    for node in ast.walk(ast.parse(text)):
        for field in ("id", "attr", "arg", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str) and not isinstance(node, ast.keyword):
                found.update(name.split("."))
    return frozenset(name for name in found if not name.startswith("__"))


def parts(name: str) -> Iterator[str]:
    """The words that a name is made of: of snake_case and of CamelCase."""
    for part in name.split("_"):
        yield from (word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", part))


def old_words(path: Path) -> list[str]:
    """What a file has of the old words, each with what to say instead."""
    by_part = {(name, part) for name in names(path) for part in parts(name) if part in GONE}
    said = [f"{name}: say {GONE[part]}" for name, part in sorted(by_part)]
    return said + [f"{name}: say {GONE_WHOLE[name]}" for name in sorted(names(path) & GONE_WHOLE.keys())]


def test_each_term_says_what_it_is_and_whose_word_it_is() -> None:
    assert len(rows()) > 40
    for term, (what, origin, _, _) in rows().items():
        assert len(what) > 10, term
        assert re.fullmatch(r"RFC \d{4} §[\d.]+|kernel: .+|routers' word|here", origin), term


def test_each_term_has_a_name_in_c_or_in_python_that_stands_there() -> None:
    for term, (_, _, in_c, in_python) in rows().items():
        assert in_c or in_python, term
        assert [name for name in in_c if not re.search(rf"\b{name}\b", written(*C))] == [], f"{term}: not in bpf/"
        lost = [name for name in in_python if not re.search(rf"\b{name}\b", written(*PYTHON))]
        assert lost == [], f"{term}: not in npd6_xdp/"


def test_each_term_is_used_where_people_read() -> None:
    read = written("docs/**/*.md", "README.md", *C, *PYTHON).replace("_", " ").lower()
    glossary = "\n".join(rows()).lower()
    for term in rows():
        word = term.partition(" (")[0].replace("_", " ").lower()
        assert read.count(word) > glossary.count(word), term


def test_each_map_of_the_program_has_its_term_and_bpftool_shows_the_whole_name() -> None:
    kinds = r"BPF_(?:F_)?TABLE\([^,]+, [^,]+, [^,]+,\s*(\w+)|BPF_PERF_OUTPUT\((\w+)\)"
    maps = {table or ring for table, ring in re.findall(kinds, written("bpf/ns_filter.c"))}
    assert maps >= layout.MAPS.keys()
    assert maps - {name for _, _, in_c, _ in rows().values() for name in in_c} == set()
    longest = 15  # BPF_OBJ_NAME_LEN, with the byte that ends it
    assert [name for name in maps if len(name) > longest] == []


def test_a_struct_has_one_name_in_c_and_in_python() -> None:
    structs = {name: value for name, value in vars(layout).items() if isinstance(value, layout.Layout)}
    assert len(structs) > 10
    for name, struct in structs.items():
        assert struct.name in (name.lower(), "int", "unsigned int", "unsigned long long"), name


def test_what_has_been_renamed_does_not_come_back() -> None:
    found = {}
    for place in OURS:
        for path in sorted(ROOT.glob(place)):
            if path != Path(__file__) and (said := old_words(path)):
                found[str(path.relative_to(ROOT))] = said
    assert found == {}


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.py", "@dataclass(slots=True)\nclass A:\n    __slots__ = ()\n", []),
        ("a.py", "slots = 1\n", ["slots: say entries"]),
        ("a.py", "def f(slot_key): ...\n", ["slot_key: say entry"]),
        ("a.py", "class SlotFlag: ...\n", ["SlotFlag: say entry"]),
        ("a.py", "import a.slot as b\n", ["slot: say entry"]),
        ("a.py", "self._dues\n", ["_dues: say timers, or times"]),
        ("a.py", "from a import group_of\n", ["group_of: say via_set_of"]),
        ("slot.py", "", ["slot: say entry"]),
        ("a.c", 'x = SLOT_KEY; /* slot */ f("slot"); // slot\n', ["SLOT_KEY: say entry"]),
        ("a.c", "struct known_flag residues;\n", ["known_flag: say present_flag"]),
    ],
)
def test_an_old_word_is_told_from_what_only_looks_like_one(
    tmp_path: Path, name: str, text: str, wanted: list[str]
) -> None:
    (tmp_path / name).write_text(text)
    assert old_words(tmp_path / name) == wanted


def test_nobody_stops_at_a_phrase() -> None:
    found = [
        f"{path}: {phrase!r}"
        for path in texts()
        for phrase in GONE_PHRASES
        if path.name not in ("CHANGELOG.md", "LICENSE", Path(__file__).name)
        and re.search(rf"(?<![A-Za-z]){re.escape(phrase)}", (ROOT / path).read_text(), re.IGNORECASE)
    ]
    assert found == []
