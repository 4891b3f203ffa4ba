# SPDX-License-Identifier: GPL-2.0-or-later
"""Each line of the log that speaks of an interface, a target, an error or a file has it as a field, too."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import npd6_xdp
from npd6_xdp.core.build import build
from npd6_xdp.core.config_file import parse
from npd6_xdp.core.logged import Fields, fields, fields_of, named, rule_of
from npd6_xdp.daemon.lines import MOST_TIMES, Damper, Lines, Once
from npd6_xdp.tools.log_format import _JsonFormatter

PACKAGE = Path(npd6_xdp.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
WITHOUT = {
    "tracing for process %d",
    "nothing was heard for %.0f s of process %d, which traces",
    "tracing has ended for process %d",
    "and %s more cleared",
    "more_of(more)",
    "remark.text",  # of a file of ndppd's: its line and column are in it
    "line",  # of the state that SIGUSR1 asks for, as `status` has it
    "%d starts in a row didn't get ready: what answered meanwhile, by what a process before them knew, is taken away;"
    " nothing is answered until a start succeeds",
    "%s is running here (pid %d): two that answer on one link are a mistake; stop one",
    "another npd6-xdp runs in this network namespace (pid %d): what it has is left to it",
    "%s: ending",
    "the kernel maps have grown",
    "the kernel grants %d pages a CPU for the ring to Python, not %d: raise LimitMEMLOCK= (ulimit -l)",
    "reload: the old configuration stays",  # behind its reasons, which have theirs
    "ignored of what a daemon has left: %.80r is no sysctl that one sets",
    "the service manager has heard how we are",
    "the service manager keeps no more than %d of what our successor needs",
    "the service manager has heard all that our successor needs",
    "the service manager is too busy to hear %d of what our successor needs: said again until it does",
    "the service manager was too busy to hear %d of what our successor needs: until it is ready, some ports may be"
    " unanswered",
    "{}: another process changes this sysctl, which method kernel needs; it is set again",
}
"""What speaks of none of these."""
SAID_BY_NAME = {"error": "error", "why": "error", "ifindex": "ifindex", "target": "target", "took": "duration"}


def words(node: ast.expr) -> str:
    """A sentence as it is written, with {} for what it is about."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.IfExp(orelse=other):
            return words(other)
    return ast.unparse(node)


def calls() -> Iterator[tuple[str, ast.Call, bool]]:
    """Every call that logs: where, and whether its fields are its keywords, not `extra`."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "lab" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            of, name = ast.unparse(node.func.value), node.func.attr
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            if of in ("log", "_LOG") and name in LEVELS:
                yield where, node, False
            elif (of.endswith("_once") and name == "warn") or (of.endswith("lines") and name in ("add", "add_line")):
                yield where, node, True


def test_every_call_that_logs_has_the_fields_of_what_it_says() -> None:
    seen = set()
    for where, call, by_keywords in calls():
        sentence = next(
            (words(each) for each in call.args if isinstance(each, ast.Constant | ast.JoinedStr | ast.IfExp)), ""
        )
        sentence = words(call.args[1]) if sentence == "%s" else sentence
        is_of_an_interface = by_keywords and ast.unparse(call.func).rpartition(".")[2] != "warn"
        given = {each.arg: each.value for each in call.keywords if each.arg not in ("about", "kind", "exc_info")}
        if not given:
            assert is_of_an_interface or sentence in WITHOUT, f"{where}: {ast.unparse(call)}"
            seen.add(sentence)
            continue
        mentioned = {node.id for arg in call.args for node in ast.walk(arg) if isinstance(node, ast.Name)}
        written = " ".join(f"{name}={ast.unparse(value)}" for name, value in given.items())
        known = written if by_keywords else f"{written} {assigned(where, written)}"
        for name, field in SAID_BY_NAME.items():
            ways = (f"{field}=", f'"{field}":', "_failed(", "about_host(", "_of_mistake(")
            is_there = any(way in known for way in ways)
            assert name not in mentioned or is_there or is_of_an_interface, f"{where}: {field} isn't in {known}"
    assert seen >= WITHOUT, f"nothing says this any more: {WITHOUT - seen}"


def assigned(where: str, name: str) -> str:
    """What stands just before a call in its file, where the fields that it takes may have been made."""
    file, _, line = where.partition(":")
    lines = (PACKAGE / file).read_text().splitlines()
    return " ".join(lines[max(0, int(line) - 8) : int(line)]) if "(" not in name or "**" in name else ""


@pytest.mark.parametrize(
    ("labels", "known"),
    [
        (("wan0",), {"interface": "wan0"}),
        (("wan0:100.7",), {"interface": "wan0", "vlan": "100.7"}),
        (("via lan0",), {"interface": "lan0"}),
        (("the kernel's neighbour table",), {}),
        ((), {}),
        (("a", "b"), {"interfaces": ("a", "b")}),
    ],
)
def test_a_label_is_an_interface_and_a_vlan(labels: tuple[str, ...], known: Fields) -> None:
    assert named(*labels) == known


def test_the_rule_that_a_warning_is_about_is_found_in_it() -> None:
    text = """
        interface = [{ name = "wan0", rule = [
            { prefix = "2001:db8::/32", method = "static", include = ["::1"], exclude = ["::1"] },
            { prefix = "2001:db8::10 - 2001:db8::1f", method = "neighbour", via = ["wan9"] },
            { prefix = "interface:wan0", method = "static", include = ["2001:db8:9::1"] }] }]
        """
    prefixes = {rule.prefix for entry in parse(text, "").interfaces for rule in entry.rules}
    assert {rule_of(f"{prefix}: nothing is behind") for prefix in prefixes} == prefixes
    assert {rule_of(f"the static rule {prefix} covers ::/64") for prefix in prefixes} == prefixes
    for line in build(parse(text, ""), {}).notes:
        assert rule_of(line.partition(": ")[2]) in prefixes, line
    for other in ("forwarding is off, so", "not an Ethernet interface: there", "it is full: sysctl -w", "up"):
        assert rule_of(other) == ""


def as_json(record: logging.LogRecord) -> dict[str, object]:
    line: dict[str, object] = json.loads(_JsonFormatter().format(record))
    return {key: value for key, value in line.items() if key not in ("time", "level")}


def test_json_has_the_fields_that_there_are_beside_the_sentence(caplog: pytest.LogCaptureFixture) -> None:
    known = fields(interface="wan0", vlan="", ifindex=0, error="no", duration=0.25, interfaces=())
    logging.getLogger("npd6-xdp").warning("%s: no", "wan0", extra=known)
    logging.getLogger("npd6-xdp").warning("of nobody")
    assert [as_json(record) for record in caplog.records] == [
        {"message": "wan0: no", "interface": "wan0", "error": "no", "duration": 0.25},
        {"message": "of nobody"},
    ]


def test_lines_of_interfaces_keep_their_fields_when_they_are_one_or_held_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    damper = Damper()
    lines = Lines(damper)
    for number in range(11):
        lines.add(logging.INFO, f"sub{number}", "up", ifindex=number + 1)
    lines.say()
    for _ in range(MOST_TIMES + 1):
        lines.add_line(logging.INFO, "wan0:100: down", ifindex=7)
        lines.say()
    damper.settle(1e9)
    Once().warn("no", about="x", target="::1", error="no")
    known = [fields_of(record) for record in caplog.records]
    assert known[0] == {"interfaces": tuple(f"sub{number}" for number in range(11))}
    assert known[1:-1] == [{"interface": "wan0", "vlan": "100", "ifindex": 7}] * (MOST_TIMES + 1)
    assert known[-1] == {"target": "::1", "error": "no"}
