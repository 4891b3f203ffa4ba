# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as a user meets it: what it prints, where, and its exit status."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import npd6_xdp
from npd6_xdp.cli import argument_parser

ROOT = Path(npd6_xdp.__file__).parent.parent
GOOD = """\
[[interface]]
name = "wan7"
[[interface.rule]]
prefix = "2001:db8:1::/64"
method = "static"
[[interface.rule]]
prefix = "2001:db8:1::dead"
method = "ignore"
[[interface]]
name = "wan7"
vlan = 100
datapath = "monitor"
dad = "defend"
na_source = "interface"
[[interface.rule]]
prefix = "2001:db8:2::/64"
method = "static"
"""


NOT_HERE = "npd6-xdp: note: not on this machine: wan7; npd6-xdp run waits for it\n"


def npd6(*argv: str, path: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "npd6_xdp", *argv],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        timeout=120,
        cwd=cwd,
    )


@pytest.fixture
def good(tmp_path: Path) -> str:
    file = tmp_path / "good.toml"
    file.write_text(GOOD)
    return str(file)


@pytest.fixture
def no_bcc(tmp_path: Path) -> str:
    """A directory whose `bcc` is the other package of that name."""
    (tmp_path / "bcc.py").write_text("'''crystallography'''\n")
    return str(tmp_path)


def test_help_names_every_command() -> None:
    done = npd6("--help")
    assert done.returncode == 0
    for verb in VERBS:
        assert f"\n    {verb} " in done.stdout


VERBS = (
    *("run", "check", "explain", "status", "reload", "convert", "probe", "replay", "alerts", "lab", "version", "init"),
    "trace",
)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_command_ends_with_examples_that_it_takes(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = argument_parser()
    (verbs,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    help = verbs[verb].format_help()
    body, title, examples = help.partition("\nexample")
    assert title
    assert all(len(line) <= 80 for line in body.splitlines())
    _, *lines = examples.splitlines()
    assert lines
    for line in lines:
        words = shlex.split(line.partition(" > ")[0].partition(" | ")[0])
        assert words[:2] == ["npd6-xdp", verb]
        parser.parse_args(words[1:])


def where_etc_has(config: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a mount namespace whose /etc has nothing but the service's configuration, if that."""
    script = """
        set -e
        mount -t tmpfs tmpfs /etc
        [ -z "$1" ] || install -D "$1" /etc/npd6-xdp/npd6-xdp.toml
        shift
        exec "$@"
    """
    words = ("unshare", "--mount", "bash", "-c", script, "bash", config, sys.executable, "-m", "npd6_xdp", *argv)
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_configuration_that_is_not_named_is_the_services(good: str) -> None:
    done = where_etc_has("", "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "npd6-xdp: /etc/npd6-xdp/npd6-xdp.toml: no such file; npd6-xdp init writes a first one, or name another by"
        " --config\n"
    )
    done = where_etc_has(good, "check")
    assert (done.returncode, done.stderr) == (0, NOT_HERE)
    assert done.stdout == npd6("check", "--config", good).stdout


def test_version_is_told_in_both_ways() -> None:
    assert npd6("version").stdout == npd6("--version").stdout == f"npd6-xdp {npd6_xdp.__version__}\n"


def test_check_prints_the_table_most_specific_rule_first_and_needs_no_bcc(good: str, no_bcc: str) -> None:
    done = npd6("check", "--config", good, path=no_bcc)
    assert (done.returncode, done.stderr) == (0, NOT_HERE)
    assert done.stdout == (
        "wan7: hybrid, attach auto, router yes, dad ignore, na_source target, events_per_source 1000\n"
        "  2001:db8:1::dead/128  ignore\n"
        "  2001:db8:1::/64       static\n"
        "\n"
        "wan7:100: monitor, attach auto, router yes, dad defend, na_source interface, events_per_source 1000\n"
        "  2001:db8:2::/64  static\n"
    )
    table = json.loads(npd6("check", "--config", good, "--json").stdout)
    assert table["absent"] == ["wan7"]
    assert [entry["interface"] for entry in table["interfaces"]] == ["wan7", "wan7:100"]
    assert table["interfaces"][0]["rules"][0] == {
        "prefix": "2001:db8:1::dead/128",
        "rule": "2001:db8:1::dead",
        "method": "ignore",
    }


def test_a_module_that_is_missing_is_one_line_that_no_restart_mends(good: str) -> None:
    """Status 2: else a service would be started again and again, while an old program answers."""
    hide = "import sys; sys.modules['npd6_xdp.daemon.rings'] = None"
    words = f"{hide}; from npd6_xdp.cli import main; sys.exit(main(['run', '--config', '{good}']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", words], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "npd6-xdp: the Python module npd6_xdp.daemon.rings is missing: install its package, or npd6-xdp, once more\n"
    )


NOT_INSTALLED = {
    "bcc": ("import sys; sys.modules['bcc'] = None", "bcc is missing: install the distribution's package "),
    "another bcc": ("import sys, types; sys.modules['bcc'] = types.ModuleType('bcc')", "bcc is missing: install "),
    "its library": (
        "import ctypes as ct; real = ct.CDLL; ct.CDLL = lambda name, **more: real(name and name.replace('bcc', 'no'))",
        "can't load bcc: libno.so.0: cannot open shared object file: No such file or directory: install the ",
    ),
    "the program": (
        "from pathlib import Path; from npd6_xdp.system.bpf import compiler; compiler.BPF_DIRECTORY = Path('/nowhere')",
        "can't read the XDP program: /nowhere/ns_filter.c: No such file or directory: install npd6-xdp once more",
    ),
    "part of a module": (
        "import npd6_xdp.core.said as said; del said.Said",
        "the Python module can't be used: cannot import name 'Said' from 'npd6_xdp.core.said' (",
    ),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="a daemon is started")
@pytest.mark.parametrize("what", NOT_INSTALLED)
def test_whatever_is_not_installed_is_one_line_that_no_restart_mends(good: str, what: str) -> None:
    missing, line = NOT_INSTALLED[what]
    words = f"{missing}; import sys; from npd6_xdp.cli import main; sys.exit(main(['run', '--config', '{good}']))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", words], env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"npd6-xdp: {line}")
    assert done.stderr.count("\n") == 1


def test_check_needs_no_root(shared_path: Path) -> None:
    file = shared_path / "good.toml"
    file.write_text(GOOD)
    words = f"import os, sys; os.setuid(65534); sys.argv = ['npd6-xdp', 'check', '--config', {str(file)!r}]"
    done = subprocess.run(
        [sys.executable, "-c", f"import npd6_xdp.cli, npd6_xdp.core.explain\n{words}\nsys.exit(npd6_xdp.cli.main())"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, NOT_HERE)


MISTAKES = (
    ("not TOML", "[[interface]\n", "1:12: not valid TOML: "),
    ("nothing in it", "", " no interface; write [[interface]]"),
    ("an unknown key", GOOD.replace("datapath", "datapth"), '12:1: interface[1].datapth: unknown key "datapth"'),
    ("a bad value", GOOD.replace('"monitor"', '"watch"'), "12:1: interface[1].datapath: must be "),
    ("a wrong type", GOOD.replace("vlan = 100", "vlan = true"), "11:1: interface[1].vlan: must be "),
    ("a missing key", GOOD.replace('method = "ignore"\n', ""), "6:1: interface[0].rule[1].method: missing"),
    (
        "a method without its key",
        GOOD.replace('"ignore"\n[[', '"neighbour"\n[['),
        "6:1: interface[0].rule[1].via: ",
    ),
    ("a limit that is none", GOOD + "[limits]\npending = 0\n", "19:1: limits.pending: must be"),
    ("host bits", GOOD.replace("1::/64", "1::1/64"), "4:1: interface[0].rule[0].prefix: "),
    ("a prefix of IPv4", GOOD.replace("2001:db8:2::/64", "192.0.2.0/24"), "16:1: interface[1].rule[0].prefix: "),
    (
        "twice the same entry",
        GOOD.replace("vlan = 100\n", ""),
        "9:1: interface[1]: the same name and vlan as interface[0] (line 1)",
    ),
    (
        "twice the same rule",
        GOOD.replace("1::dead", "1::/64"),
        "7:1: interface[0].rule[1].prefix: the same prefix as interface[0].rule[0].prefix (line 4)",
    ),
    (
        "two ways to attach one interface",
        GOOD.replace('name = "wan7"\n[', 'name = "wan7"\nattach = "native"\n[').replace(
            "vlan = 100", 'vlan = 100\nattach = "generic"'
        ),
        '13:1: interface[1].attach: "generic", but interface[0].attach (line 3) says "native"',
    ),
)


@pytest.mark.parametrize(("what", "text", "message"), MISTAKES, ids=[what for what, *_ in MISTAKES])
def test_check_says_each_mistake_in_one_line_with_its_place(tmp_path: Path, what: str, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    done = npd6("check", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"npd6-xdp: {file}:{message}")


def test_check_says_all_mistakes_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(GOOD.replace("static", "statc").replace("100", "5000"))
    done = npd6("check", "--config", str(file))
    assert [line.partition(str(file))[2].partition(": ")[0] for line in done.stderr.splitlines()] == [
        ":5:1",
        ":11:1",
        ":17:1",
    ]
    as_json = npd6("check", "--config", str(file), "--json")
    assert (as_json.returncode, as_json.stderr) == (2, done.stderr)
    found = json.loads(as_json.stdout)["mistakes"]
    assert [
        "npd6-xdp: {file}:{line}:{column}: {place}: {message}".format(**mistake) for mistake in found
    ] == done.stderr.splitlines()


def test_a_mistake_of_the_whole_file_has_no_line_in_json(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[daemon]\n")
    (mistake,) = json.loads(npd6("check", "--config", str(file), "--json").stdout)["mistakes"]
    assert mistake == {**mistake, "file": str(file), "line": None, "column": None, "place": None}


def test_a_byte_order_mark_windows_lines_tabs_and_accents_leave_line_and_column_right(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    text = "daemon.log_level = 1\r\n" + GOOD.replace('method = "ignore"', '\t"é" = "", "method" = 1').replace(
        "\n", "\r\n"
    )
    text = text.replace(', "method" = 1', "\r\n\t \tmethod = 1 # é")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    lines = npd6("check", "--config", str(file)).stderr.splitlines()
    assert [line.partition(str(file))[2].split(": ")[:2] for line in lines] == [
        [":1:8", "daemon.log_level"],
        [":9:2", 'interface[0].rule[1]."é"'],
        [":10:4", "interface[0].rule[1].method"],
    ]


def test_the_mistakes_in_the_documentation_are_what_check_says(tmp_path: Path) -> None:
    page = (ROOT / "docs/configuration.md").read_text().partition("## Errors\n")[2]
    text, said = re.findall(r"```(?:toml)?\n(.*?)```", page, re.DOTALL)[:2]
    (tmp_path / "bad.toml").write_text(text)
    command, *lines = said.splitlines()
    done = npd6(*command.removeprefix("# npd6-xdp ").split(), cwd=tmp_path)
    assert done.stderr.splitlines() == lines


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    done = npd6("check", "--config", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (
        2,
        f"npd6-xdp: {tmp_path / 'none'}: can't read it: No such file or directory\n",
    )
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xee")
    assert npd6("check", "--config", str(binary)).stderr == (
        f"npd6-xdp: {binary}:1:1: not UTF-8 text: byte 0 can't be decoded; save it as UTF-8\n"
    )


EXPLAINED = (
    (("2001:db8:1::42",), "outcome: answered_xdp (present, by method static)"),
    (("2001:db8:1::dead",), "outcome: ignored (the rule says so)"),
    (("2001:db8:3::1",), "outcome: unmatched (no rule covers it)"),
    (("2001:db8:1::42", "--vlan", "200"), "outcome: unmatched (no [[interface]] entry matches VLAN 200 of wan7)"),
    (("2001:db8:2::1", "--vlan", "100"), "outcome: monitored ("),
    (("2001:db8:1::42", "--source", "::"), "outcome: dad (a DAD probe"),
    (("fe80::1",), "outcome: ignored (such a target is never answered, unless a rule names exactly"),
    (("ff02::1",), "outcome: invalid (the target is a multicast address"),
    (("2001:db8:1::42", "--source", "ff02::1"), "outcome: invalid (the source is a multicast address"),
)


@pytest.mark.parametrize(("argv", "wanted"), EXPLAINED)
def test_explain_tells_the_outcome_and_why(good: str, argv: tuple[str, ...], wanted: str) -> None:
    done = npd6("explain", *argv, "--interface", "wan7", "--config", good)
    assert (done.returncode, done.stderr) == (0, "")
    assert wanted in done.stdout
    assert "note: wan7 is not on this machine" in done.stdout


def test_explain_shows_the_advertisement(good: str) -> None:
    done = npd6("explain", "2001:db8:1::42", "--interface", "wan7", "--config", good, "--source", "2001:db8::9")
    assert "advertisement: the MAC of wan7 > the asker's MAC; 2001:db8:1::42 > 2001:db8::9\n" in done.stdout
    assert "target 2001:db8:1::42, R=1 S=1 O=0, target link-layer address the MAC of wan7, 86 bytes\n" in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("2001:db8::1", "--interface", "wan8"), "npd6-xdp: --interface wan8: "),
        (("2001:db8::1", "--interface", "wan7", "--vlan", "5000"), "npd6-xdp: --vlan 5000: a VLAN is 1 to 4094"),
        (("2001:db8::1", "--interface", "wan7", "--vlan", "any"), "npd6-xdp: --vlan any: name one VLAN"),
        (
            ("2001:db8::1",),
            "npd6-xdp: --interface: name the one that the question comes in by, or ask the running daemon",
        ),
        (("192.0.2.1", "--interface", "wan7"), "'192.0.2.1' is not an IPv6 address"),
    ],
)
def test_a_question_that_cannot_be_is_status_2(good: str, argv: tuple[str, ...], message: str) -> None:
    done = npd6("explain", *argv, "--config", good)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--vlan", "0"), "--vlan 0: VLAN 0 is none"),
        (("--target", "2001:db8:1::1/64"), "--target 2001:db8:1::1/64: its address has bits set behind its length"),
        (("--source", "02:00"), "--source 02:00: write a MAC address such as "),
        (("--outcome", "gone"), "--outcome gone: 'gone' is none: name some of answered_xdp, "),
        (("--outcome", ""), "--outcome : '' is none: name some of answered_xdp, "),
        (("--interface", ""), "--interface : an interface's name has 1 to 15 characters"),
        (("--interface", "wan0:100"), "--interface wan0:100: write its name alone, and which frames by --vlan"),
        (("--interface", "wan*"), "--interface wan*: must be the exact name of one interface"),
        (("--rule", "wan0"), "--rule wan0: must be an IPv6 prefix or address, such as "),
        (("--rule", "2001:db8::1/64"), "--rule 2001:db8::1/64: 2001:db8::1/64 has host bits set; write 2001:db8::/64"),
        (("--count", "0"), "--count 0: write a number from 1 to 1,000,000,000"),
        (("--sample", "none"), "--sample none: write a number from 1 to 2,147,483,647"),
        (("--write", "/nowhere/a.pcapng"), "--write /nowhere/a.pcapng: can't write it: No such file or directory"),
        (("--json", "--write", "-"), "--json --write -: standard output takes one of the two: name a file"),
    ],
)
def test_what_a_trace_cannot_be_asked_for_is_one_line_of_status_2(argv: tuple[str, ...], message: str) -> None:
    done = npd6("trace", *argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"npd6-xdp: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "the following arguments are required: COMMAND; npd6-xdp --help says what it takes"),
        (("looc",), "argument COMMAND: invalid choice: 'looc' (choose from "),
        (
            ("trace", "--rule"),
            "trace: argument --rule: expected one argument; npd6-xdp trace --help says what it takes",
        ),
        (("trace", "--loud"), "trace: unrecognized arguments: --loud; npd6-xdp trace --help says what it takes"),
        (("explain",), "explain: the following arguments are required: ADDRESS; "),
        (("explain", "host"), "explain: argument ADDRESS: 'host' is not an IPv6 address; "),
        (("explain", "::1", "--live", "--vlan", "x"), '--vlan x: must be "untagged", "any", a VLAN such as 100'),
        (
            ("explain", "::1"),
            "--interface: name the one that the question comes in by, or ask the running daemon: --live",
        ),
        (("doctor", "host"), "doctor: argument ADDRESS: 'host' is not an IPv6 address; "),
        (("doctor", "a\nb"), "doctor: argument ADDRESS: "),
        (("doctor", "--config", "/nowhere/a.toml"), "/nowhere/a.toml: can't read it: No such file or directory"),
        (("init", "eth0"), "init: unrecognized arguments: eth0; npd6-xdp init --help says what it takes"),
        (("init", "--apply=now"), "init: argument --apply: ignored explicit argument 'now'; "),
    ],
)
def test_what_a_command_does_not_take_is_one_line_of_status_2(argv: tuple[str, ...], message: str) -> None:
    done = npd6(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"npd6-xdp: {message}")
    assert done.stderr.count("\n") == 1


def test_doctor_is_status_2_where_the_configuration_has_mistakes_and_status_1_where_it_cannot_work(
    tmp_path: Path, good: str
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(GOOD.replace("static", "statc"))
    done = npd6("doctor", "--config", str(bad))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"npd6-xdp: {bad}:5:1: interface[0].rule[0].method: " in done.stderr
    assert npd6("doctor", "2001:db8:1::1", "--try", "--config", good).returncode == 2
    done = npd6("doctor", "--config", good)  # whose interface isn't here
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("argv", [("trace",), ("explain", "2001:db8:1::1", "--live"), ("status",)])
def test_what_asks_a_daemon_that_is_not_there_is_status_1(tmp_path: Path, argv: tuple[str, ...]) -> None:
    done = npd6(*argv, "--control", str(tmp_path / "a.sock"))
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"npd6-xdp: {tmp_path}/a.sock: no npd6-xdp is running there; see --control, and daemon.control\n"
    )


def test_a_trace_without_a_daemon_says_so_and_leaves_files_as_they_were(tmp_path: Path) -> None:
    file, other = tmp_path / "a.pcapng", tmp_path / "b.pcapng"
    other.write_text("what was there")
    for each in (file, other):
        done = npd6("trace", "--control", str(tmp_path / "a.sock"), "--write", str(each))
        assert (done.returncode, done.stdout) == (1, "")
        said = f"{tmp_path}/a.sock: no npd6-xdp is running there; see --control, and daemon.control"
        assert done.stderr == f"npd6-xdp: {said}\n"
    assert not file.exists()
    assert other.read_text() == "what was there"


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "argv",
    [
        ("explain", "2001:db8:1::42", "--interface", "wan7", "--source", "::1", "--config"),
        ("check", "--config"),
        ("check", "--config", "/nowhere/ünd.toml", "--json", "--config"),
    ],
    ids=["a section sign", "nothing odd", "the user's own letters"],
)
def test_what_a_terminals_character_set_lacks_is_escaped(
    good: str, argv: tuple[str, ...], charset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = npd6(*argv, good)
    monkeypatch.setenv("PYTHONIOENCODING", charset)
    done = npd6(*argv, good)
    assert done.returncode == plain.returncode == 0
    assert "Traceback" not in done.stderr
    if charset == "ascii":
        assert (done.stdout + done.stderr).isascii()
