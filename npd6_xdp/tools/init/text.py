# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan as text: the configuration, with its reasons as comments, and what is said beside it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from npd6_xdp.core.config_keys import MOST_VIAS
from npd6_xdp.core.names import word
from npd6_xdp.tools.init.plan import Entry, Plan, Rule, Step

_WIDTH = 110
_HEAD = (
    "For what was found on this machine, by `npd6-xdp init`. `npd6-xdp check` prints what it means; npd6-xdp.toml(5)"
    " has every key."
)


def document(plan: Plan) -> str:
    """The configuration. What isn't active stands as a comment; of a plan without anything active, all of it."""
    lines = [*_comment(_HEAD), *(line for note in plan.notes for line in _comment(note))]
    for entry in plan.entries:
        lines += ["", *_entry(entry)]
    return "\n".join(lines) + "\n"


def _entry(entry: Entry) -> Iterator[str]:
    mark = "" if entry.active else "# "
    yield from (line for why in entry.why for line in _comment(why))
    yield f"{mark}[[interface]]"
    yield f"{mark}name = {_string(entry.name)}"
    for rule in entry.rules:
        yield ""
        yield from (line for why in rule.why for line in _comment(why))
        yield from (f"{'' if rule.active else '# '}{line}" for line in _rule(rule))


def _rule(rule: Rule) -> Iterator[str]:
    yield "[[interface.rule]]"
    yield f"prefix = {_string(rule.prefix)}"
    yield f"method = {_string(rule.method)}"
    if (more := len(rule.via) - MOST_VIAS) > 0:
        why = f"a rule has at most {MOST_VIAS:,} names, and a glob means several"
        yield from _comment(f"{more:,} more are behind: {why}.")
    yield f"via = [{', '.join(map(_string, rule.via[:MOST_VIAS]))}]"
    if rule.host_routes:
        yield "host_routes = true"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # for printable text a TOML string, too


# --- What is said beside it ---


def by_hand(steps: Sequence[Step]) -> list[str]:
    """The lines on what is left to do by hand; nothing where there is nothing."""
    lines = ["by hand, as addresses and routes are your network configuration's (and your own session may go by them):"]
    for step in steps:
        lines += _said(step.words)
        if step.where:
            lines.append(f"    {step.where}:")
        lines += [f"      {'  ' if step.where else ''}{command}" for command in step.commands]
    return lines if steps else []


def proof(plan: Plan, config: str) -> list[str]:
    """How to see that it works; `config` is the file, "" for the usual one."""
    option = f" --config {config}" if config else ""
    target = plan.example or "ADDRESS"
    commands = (
        (f"npd6-xdp check{option}", "what the file means"),
        (f"npd6-xdp explain {target} --interface {word(plan.asked_on)}{option}", "what would be answered, and why"),
        (
            f"npd6-xdp run{option}",
            "as root: answer" + ("" if config else "; as a service: systemctl enable --now npd6-xdp"),
        ),
        (f"npd6-xdp probe {target} --interface IF", f"on the upstream's side, or from outside: ping -6 {target}"),
        (f"npd6-xdp doctor{option}", "what on this machine is still in the way"),
    )
    width = max(len(command) for command, _ in commands)
    who = "" if plan.example else "; ADDRESS is a host's behind it"
    return [f"how to see that it works{who}:", *(f"    {command:<{width}}  # {why}" for command, why in commands)]


def _said(text: str) -> Iterable[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )
