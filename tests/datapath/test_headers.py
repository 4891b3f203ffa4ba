# SPDX-License-Identifier: GPL-2.0-or-later
"""The program's headers: each can be read, compiled and skipped by itself, and none touches a map."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from npd6_xdp.core.errors import MachineError
from npd6_xdp.system.bpf import compiler, load
from npd6_xdp.system.bpf.compiler import compile_program

FILES = sorted(compiler.BPF_DIRECTORY.glob("*.[ch]"))
HEADERS = [path.name for path in FILES if path.suffix == ".h"]
STRICT = '#pragma clang diagnostic error "-Wall"\n#pragma clang diagnostic ignored "-Wunused-function"\n'
MAPS = re.compile(r"\bBPF_\w*(?:TABLE|OUTPUT|HASH|ARRAY)\b|\.\s*(?:lookup\w*|update|insert|delete|perf_submit\w*)\s*\(")
SCREEN = 60  # lines

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loading an XDP program needs root")


def compiles(headers: Sequence[str], before: str = "", behind: str = "") -> None:
    """Nothing but these headers, in this order, with what is to stand before and behind them; raises MachineError."""
    texts = [load._with_headers(compiler.BPF_DIRECTORY, name) for name in headers]
    compile_program("\n".join([STRICT, before, *texts, behind, "int passes(void *ctx) { return 2; }"]), "passes", {})


def code(path: Path) -> str:
    """A file's text without its comments."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)


def functions(text: str) -> dict[str, int]:
    """The functions of a C text, and how many lines each has, with its signature."""
    found: dict[str, int] = {}
    start, name = 0, ""
    for number, line in enumerate(text.splitlines()):
        if (begin := re.match(r"[a-z][\w\s*]*?(\w+)\([^;]*$", line)) and not line.startswith("#"):
            start, name = number, begin[1]
        elif line == "}" and name:
            found[name], name = number - start + 1, ""
    return found


@needs_root
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_compiles_by_itself_without_a_warning(name: str) -> None:
    compiles([name])


@needs_root
def test_headers_may_be_included_in_any_order_and_twice() -> None:
    compiles([*reversed(HEADERS), *HEADERS])


@needs_root
@pytest.mark.parametrize(
    ("header", "body", "place"), [("int x = 1;", "y", "ns_filter.c:2"), ("\nint x = y;", "x", "wire.h:2")]
)
def test_the_compiler_names_the_file_and_the_line_that_it_complains_of(
    tmp_path: Path, header: str, body: str, place: str
) -> None:
    (tmp_path / "wire.h").write_text(header)
    (tmp_path / "ns_filter.c").write_text(f'#include "wire.h"\nint passes(void *ctx) {{ return {body}; }}')
    with pytest.raises(MachineError, match=rf"\b{place}:\d+: error: use of undeclared identifier 'y'"):
        compile_program(load._source(tmp_path), "passes", {})


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_touches_no_map(name: str) -> None:
    """Whoever loads it by -I finds out late: the kernel refuses the program with "unknown opcode 8d"."""
    assert not MAPS.findall(code(compiler.BPF_DIRECTORY / name))


def test_what_touches_a_map_is_told_from_what_does_not() -> None:
    found = MAPS.findall(code(compiler.BPF_DIRECTORY / "ns_filter.c"))
    assert {each.strip(". (") for each in found} > {"BPF_TABLE", "lookup", "update", "perf_submit"}


@needs_root
@pytest.mark.parametrize(
    ("order", "bytes_of_1"),
    [("__ORDER_LITTLE_ENDIAN__", "0x0100, 0x01000000, 1ULL << 56"), ("__ORDER_BIG_ENDIAN__", "1, 1, 1")],
)
def test_a_constant_of_the_wire_is_in_network_order_on_machines_of_either_kind(order: str, bytes_of_1: str) -> None:
    two, four, eight = bytes_of_1.split(", ")
    compiles(
        ["wire.h"],
        before=f"#undef __BYTE_ORDER__\n#define __BYTE_ORDER__ {order}",
        behind=f"""
            _Static_assert(BE16(1) == {two} && BE32(1) == {four} && BE64(1) == {eight}, "");
            _Static_assert(be16_to_cpu(BE16(0x86dd)) == 0x86dd, "");
        """,
    )


@needs_root
def test_a_machine_of_neither_kind_is_refused_by_the_compiler_not_by_wrong_answers() -> None:
    with pytest.raises(MachineError, match="neither little-endian nor big-endian"):
        compiles(["wire.h"], before="#undef __BYTE_ORDER__\n#define __BYTE_ORDER__ __ORDER_PDP_ENDIAN__")


def test_the_order_of_bytes_is_known_in_one_place() -> None:
    swapping = [path.name for path in FILES if re.search(r"bswap|BYTE_ORDER|hton|ntoh", code(path))]
    assert swapping == ["wire.h"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_function_of_the_program_is_read_in_one_screen(path: Path) -> None:
    found = functions(path.read_text())
    assert found or path.name == "shared.h"
    assert {name: lines for name, lines in found.items() if lines > SCREEN} == {}
