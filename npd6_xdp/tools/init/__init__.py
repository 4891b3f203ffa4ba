# SPDX-License-Identifier: GPL-2.0-or-later
"""`npd6-xdp init`: from what is found on this machine to a first configuration, with its reasons.

The machine is looked at once (facts.py), all is decided from that (decide.py), and what is written is a configuration,
and under `--apply` sysctls: never an address or a route.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from npd6_xdp.core.config_file import parse
from npd6_xdp.core.errors import MachineError
from npd6_xdp.core.names import word
from npd6_xdp.core.warnings import solicited
from npd6_xdp.tools.init.decide import decide
from npd6_xdp.tools.init.facts import machine
from npd6_xdp.tools.init.machine import BareMachine
from npd6_xdp.tools.init.plan import Plan, Setting
from npd6_xdp.tools.init.settings import shown, ways_back
from npd6_xdp.tools.init.text import by_hand, document, proof
from npd6_xdp.tools.init.uplinks import uplinks
from npd6_xdp.tools.init.write import SYSCTLS, existing, is_kept, keep, set_now, write_new


def run(path: Path, *, write: bool, apply: bool) -> int:
    """Write a configuration for this machine to stdout, or to `path`; what else it takes is said on stderr.

    Raises MachineError where there is nothing to answer for, or what is to be written can't be.
    """
    if write and os.path.lexists(path):
        raise existing(path, "; nothing was set either" if apply else "")
    found = machine()
    plan = decide(found)
    text = document(plan)
    if plan.problem:
        if not write:
            print(text, end="", flush=True)
        raise MachineError(plan.problem)
    if apply and plan.settings:
        is_kept(plan.lasting)  # or a line says why not, before anything is written or set
    parse(text, "init")  # what is written here is read there, or it is a mistake of ours
    if write:
        write_new(path, text)
        _say([f"written: {path}"])
    else:
        print(text, end="", flush=True)
    if apply:
        _apply(found, plan)
    else:
        _say(_to_set(plan))
    _say(by_hand(plan.steps))
    _say(proof(plan, "" if write else "npd6-xdp.toml"))
    return 0


def _to_set(plan: Plan) -> list[str]:
    if not plan.settings:
        return []
    commands = [f"    sysctl -w {word(f'{shown(each.key)}={each.value}')}   # {each.why}" for each in plan.settings]
    return ["to set, in this order (npd6-xdp init --apply does, also for the next boot):", *commands]


def _apply(found: BareMachine, plan: Plan) -> None:
    """Set what is to be set, one after the other, and say each with the way back."""
    if not plan.settings:
        _say(["nothing to set: forwarding is on, and what router advertisements give stays"])
        return
    done: list[Setting] = []
    back: list[str] = []
    kept = f"only until the next boot, as {SYSCTLS} wasn't written"
    try:
        for setting in plan.settings:
            set_now(setting)
            done.append(setting)
        if keep(plan.lasting):
            back, kept = [f"rm {SYSCTLS}"], f"for the next boot: {SYSCTLS}"
        else:
            kept = f"for the next boot: {SYSCTLS} has them already"
    finally:  # also of what is done only in part
        if done:
            lines = [f"{shown(each.key)} = {each.value}, was {each.now or 'not set'}: {each.why}" for each in done]
            _say(["set:", *(f"    {line}" for line in [*lines, kept])])
            _say(["the way back:", *(f"    {line}" for line in [*back, *ways_back(found, done)])])
    _look_again(plan)


def _look_again(plan: Plan) -> None:
    """See that the default routes are still there. Raises MachineError if not."""
    found = machine()
    lost = [up.link.name for up in uplinks(found) if up.lost]
    if not lost:
        return
    asks = solicited(lost[0], can_ask=found.can_ask_routers)
    if not any(step.commands == asks for step in plan.steps):
        raise MachineError(
            f"the default route of {lost[0]} is gone; what asks for the next advertisement: {'; '.join(asks)}"
        )


def _say(lines: list[str]) -> None:
    if lines:
        print(f"npd6-xdp: {lines[0]}", *lines[1:], sep="\n", file=sys.stderr, flush=True)
