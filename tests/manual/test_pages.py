# SPDX-License-Identifier: GPL-2.0-or-later
"""The man pages: they build, are well formed, and say what the code does."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import npd6_xdp
from docs import keys, manual
from docs.markdown import roff
from npd6_xdp.arguments import CONFIG
from npd6_xdp.cli import argument_parser
from npd6_xdp.core.config import Attach, Config, Datapath, InterfaceConfig
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.config_keys import KEYS, REQUIRED, header
from npd6_xdp.core.errors import ConfigError, Npd6Error
from npd6_xdp.core.verdict import Limit, Method, Outcome, Reason
from npd6_xdp.system import claims, daemon_files, ended, starts
from npd6_xdp.system.bpf import shelf
from npd6_xdp.tools.init import write

ROOT = Path(manual.__file__).parents[1]
PAGES = ("man8/npd6-xdp.8", "man8/npd6-xdp-ndppd.8", "man5/npd6-xdp.toml.5")


def run(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=120
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What deploy/manual/build.sh writes."""
    directory = tmp_path_factory.mktemp("manual")
    python = tmp_path_factory.mktemp("tools") / "a python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    environment = {"SOURCE_DATE_EPOCH": "1700000000", "PYTHON": str(python)}
    done = run(str(ROOT / "deploy/manual/build.sh"), str(directory), **environment)
    assert (done.returncode, done.stderr) == (0, "")
    return directory


@pytest.fixture(scope="module")
def text(built: Path) -> dict[str, str]:
    """The pages as man(1) shows them, on lines of any length."""
    shown = {}
    for page in PAGES:
        done = run("man", "--nh", "--nj", "-E", "UTF-8", "-l", str(built / page), MANWIDTH="2000", LC_ALL="C.UTF-8")
        shown[page] = done.stdout
    return shown


def section(page: str, title: str) -> str:
    """A section's text, with single spaces."""
    found = re.search(rf"^{re.escape(title)}\n(.*?)(?=^\S|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    return " ".join(found[1].split())


@pytest.mark.parametrize("page", PAGES)
def test_neither_man_nor_mandoc_has_anything_to_say_about_a_page(built: Path, page: str) -> None:
    done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(built / page), LC_ALL="C.UTF-8")
    assert (done.returncode, done.stderr) == (0, "")
    done = run("mandoc", "-T", "lint", str(built / page))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("page", PAGES)
def test_no_line_is_stretched_nor_a_word_hyphenated_to_fill_a_screen(built: Path, page: str) -> None:
    shown = run("man", "-E", "UTF-8", "-l", str(built / page), MANWIDTH="80", LC_ALL="C.UTF-8").stdout
    body = shown.splitlines()[1:-1]
    assert [line for line in body if re.search(r"[a-z,] {3,}[a-z(]|\u2010$", line[14:])] == []


def test_pages_are_dated_by_the_build_and_named_by_the_version(built: Path) -> None:
    for page in PAGES:
        first = (built / page).read_text().partition("\n")[0]
        assert f'"2023-11-14" "npd6-xdp {npd6_xdp.__version__}"' in first


def test_pages_have_the_sections_that_one_looks_for(text: dict[str, str]) -> None:
    titles = {page: re.findall(r"^([A-Z][A-Z ]+|\[.*\])$", text[page], re.MULTILINE) for page in PAGES}
    assert titles["man8/npd6-xdp.8"] == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "OUTCOMES", "REASONS", "EXIT STATUS"),
        *("FILES", "SIGNALS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"),
    ]
    assert titles["man5/npd6-xdp.toml.5"] == [
        *(
            "NAME",
            "SYNOPSIS",
            "DESCRIPTION",
            "[daemon]",
            "[metrics]",
            "[limits]",
            "[[interface]]",
            "[[interface.rule]]",
        ),
        *("WHICH ENTRY MATCHES A FRAME", "WHICH RULE DECIDES", "METHODS", "DATAPATHS", "EXAMPLES", "FILES"),
        "SEE ALSO",
    ]
    assert titles["man8/npd6-xdp-ndppd.8"] == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "SIGNALS", "EXAMPLES", "SEE ALSO"),
    ]
    for page, name in zip(PAGES, ("npd6-xdp - ", "npd6-xdp-ndppd - ", "npd6-xdp.toml - "), strict=True):
        assert section(text[page], "NAME").startswith(name), "whatis(1) reads it"


# --- npd6-xdp(8) ---


def defined(page: str, title: str) -> list[str]:
    """The terms that a section defines, as the page shows them: those of one word."""
    found = re.search(rf"^{re.escape(title)}\n(.*?)(?=^\S|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, title
    # a short one has its text beside it, from the 14th column on
    return [a or b for a, b in re.findall(r"^ {7}(?:(\w+)|(?=.{6} )(\w+) +\S.*)$", found[1], re.MULTILINE)]


def test_each_outcome_and_each_reason_is_explained(text: dict[str, str]) -> None:
    page = text["man8/npd6-xdp.8"]
    assert defined(page, "OUTCOMES") == [name for name, _ in manual.outcomes()]
    assert sorted(defined(page, "OUTCOMES")) == sorted(map(str, Outcome))
    assert defined(page, "REASONS") == [*map(str, Reason), *map(str, Limit)]
    said = section(page, "OUTCOMES")
    for outcome, words in manual.outcomes():
        assert "](" not in words, outcome
        assert len(words.split()) > 7, outcome
        assert words.replace("`", "") in said, outcome
    assert "Its hop limit isn't 255, so it came through a router (RFC 4861 §7.1.1)." in section(page, "REASONS")


def test_each_command_has_its_description_its_options_and_its_examples(text: dict[str, str]) -> None:
    page = text["man8/npd6-xdp.8"]
    commands, examples = section(page, "COMMANDS"), section(page, "EXAMPLES")
    parser = argument_parser()
    subsections = re.split(r"^   (\w+)$", page, flags=re.MULTILINE)
    by_verb = dict(zip(subsections[1::2], subsections[2::2], strict=True))
    assert list(by_verb) == list(manual.verbs(parser))
    for verb, its in manual.verbs(parser).items():
        said = " ".join(by_verb[verb].split())
        assert " ".join((its.description or "").split()) in said
        for action in its._actions:
            if isinstance(action, argparse._HelpAction):
                continue
            help = (action.help or "") % vars(action)
            names = ", ".join(action.option_strings)
            value = str(action.metavar) if action.nargs != 0 else ""
            assert f"{f'{names} {value}'.strip()} {help[0].upper()}{help[1:]}" in said
        for example in (its.epilog or "").splitlines()[1:]:
            assert example.strip() in examples
    for option in ("-h, --help", "--version"):
        assert option in section(page, "OPTIONS")
        assert option not in commands


def subclasses(kind: type[Npd6Error]) -> Iterator[type[Npd6Error]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def test_exit_statuses_are_those_of_the_errors(text: dict[str, str]) -> None:
    statuses = {error.exit_status for error in subclasses(Npd6Error)}
    assert set(manual.EXIT_STATUS) == statuses | {0, 130}
    assert "return 130" in (ROOT / "npd6_xdp/cli.py").read_text()
    for status in manual.EXIT_STATUS:
        assert re.search(rf"(^| ){status} [A-Z]", section(text["man8/npd6-xdp.8"], "EXIT STATUS"))


def test_signals_are_those_that_the_daemon_notes() -> None:
    noted = set(re.findall(r"signal\.(SIG[A-Z0-9]+)", (ROOT / "npd6_xdp/daemon/signals.py").read_text()))
    assert {signal for row in manual.SIGNALS for signal in row.split(", ")} == noted


def test_the_environment_is_what_the_code_asks_for() -> None:
    sources = [path for path in (ROOT / "npd6_xdp").rglob("*.py") if "lab" not in path.parts]
    asked = {name for path in sources for name in re.findall(r'environ\w*\.(?:get|pop)\(\s*"(\w+)"', path.read_text())}
    assert {name for row in manual.ENVIRONMENT for name in row.split(", ")} == asked


def test_files_are_where_the_code_has_them() -> None:
    runtime = daemon_files.DIRECTORY  # the unit's RuntimeDirectory=
    others = (
        f"{runtime}/sysctl-*",
        f"{runtime / claims._NAME}",
        f"{runtime / starts._FILE}",
        str(ended.SAID),
        f"{shelf.USUAL}/",
    )
    assert set(manual.FILES) == {str(CONFIG), str(write.SYSCTLS), Config(()).control, *others}


# --- npd6-xdp.toml(5), and docs/configuration.md ---

EACH = [(of, name) for of in KEYS for name in KEYS[of]]


def test_the_tables_of_the_configuration_page_are_those_that_the_code_writes() -> None:
    text = keys.PAGE.read_text()
    assert keys.page(text) == text, "python -m docs.keys"


def test_a_page_without_a_mark_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="no marks of keys"):
        keys.page("# Configuration\n")


@pytest.mark.parametrize(("of", "name"), EACH)
def test_every_key_is_in_both_with_its_values_and_its_default(text: dict[str, str], of: str, name: str) -> None:
    assert f"| `{name}` |" in keys.PAGE.read_text() or f"`[{of}]` `{name}` |" in keys.PAGE.read_text()
    said = section(text["man5/npd6-xdp.toml.5"], f"[[{of}]]" if of.startswith("interface") else f"[{of}]")
    default, values = (plain(f(of, name)) for f in (keys.default, keys.values))
    ending = "Required." if default == "required" else f"Default: {default}."
    assert values
    assert re.search(rf"(^| ){name} [A-Zk-n\"][^:]*.* Value: {re.escape(values)}\. {re.escape(ending)}", said)


def plain(markdown: str) -> str:
    return markdown.replace("`", "")


def test_no_key_is_described_that_there_is_not() -> None:
    assert {of: list(said) for of, said in keys.SAID.items()} == {of: list(known) for of, known in KEYS.items()}
    assert list(keys.METHODS) == list(Method)
    assert list(keys.DATAPATHS) == list(Datapath)


def file(of: str = "", line: str = "") -> str:
    """A file that is right, with a line more in one of its tables."""
    rule = {"prefix": 'prefix = "2001:db8:1::/64"', "method": 'method = "neighbour"', "via": 'via = ["lan0"]'}
    tables = {"daemon": {}, "metrics": {}, "limits": {}, "interface": {"name": 'name = "wan0"'}, "interface.rule": rule}
    if of:
        tables[of] = {**tables[of], line.partition(" ")[0]: line}
    return "\n".join("\n".join((header(table), *lines.values())) for table, lines in tables.items())


def literals(words: str) -> list[str]:
    """The values in a list of them: `"a"`, `true`, `100` and 1000."""
    return [part.strip("`") for part in words.split(", ") if re.fullmatch(r'`("[^"A-Z]*"|true|false|\d+)`|\d+', part)]


@pytest.mark.parametrize(("of", "name"), EACH)
def test_each_default_that_is_written_is_the_one_that_holds(of: str, name: str) -> None:
    default = keys.default(of, name)
    if (of, name) == ("interface", "events_per_source"):
        python = InterfaceConfig("wan0", (), datapath=Datapath.PYTHON)
        assert default == f'{InterfaceConfig("wan0", ()).source_limit}; {python.source_limit} under `"python"`'
    elif found := literals(default):
        assert parse(file(of, f"{name} = {found[0]}"), "") == parse(file(), "")
    else:
        assert default in {"required", "none", "all", "the interface's"}
        assert (default == "required") == (name in REQUIRED.get(of, {}))


@pytest.mark.parametrize(("of", "name"), EACH)
def test_each_value_that_is_written_is_taken_and_none_beyond(of: str, name: str) -> None:
    values = keys.values(of, name)
    for value in literals(values):
        text = file(of, f"{name} = {value}")
        if name == "method" and value not in ('"route"', '"neighbour"'):
            text = text.replace('via = ["lan0"]', "")
        parse(text, "")
    if bounds := re.fullmatch(r"(\d+) to ([\d,]+)", values):
        low, high = (int(bound.replace(",", "")) for bound in bounds.groups())
        for number in (low, high):
            parse(file(of, f"{name} = {number}"), "")
        for number in (low - 1, high + 1):
            with pytest.raises(ConfigError, match=f"from {low} to {high}"):
                parse(file(of, f"{name} = {number}"), "")
    elif values.startswith('`"'):
        with pytest.raises(ConfigError):
            parse(file(of, f'{name} = "none of them"'), "")


@pytest.mark.parametrize("example", manual.EXAMPLES.values(), ids=range(len(manual.EXAMPLES)))
def test_the_examples_of_the_page_are_right(example: str) -> None:
    config = parse(example, "example")
    assert config.interfaces
    assert config.attach("wan0") is Attach.AUTO


# --- The way from Markdown ---


@pytest.mark.parametrize(
    ("markdown", "wanted"),
    [
        ("## TITLE\n\ntext", '.SH "TITLE"\ntext\n'),
        ("one\n\ntwo", "one\n.PP\ntwo\n"),
        (".in the beginning", "\\&.in the beginning\n"),
        ("'tis so", "\\&'tis so\n"),
        ("a `--long-option` and *VALUE*", r"a \fB\%\-\-long\-option\fR and \fIVALUE\fR" + "\n"),
        (r"back\slash", r"back\eslash" + "\n"),
        ("see [there](page.md#x)", "see there\n"),
        ("`key`\n: It is. It was.", ".TP\n\\fBkey\\fR\nIt is.\nIt was.\n"),
        ("so:\n\n    a = '1'\n    .b", "so:\n.RS 4\n.EX\na = \\(aq1\\(aq\n\\&.b\n.EE\n.RE\n"),
    ],
)
def test_markdown_becomes_roff(markdown: str, wanted: str) -> None:
    assert roff(markdown) == wanted
