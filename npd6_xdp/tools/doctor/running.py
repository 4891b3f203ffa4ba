# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon, if one answers: whether it does what the file says, and what it has lost or refused."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from npd6_xdp.core.attached import AttachMode
from npd6_xdp.core.config import Attach
from npd6_xdp.core.judgement import ANSWERED, IN_VAIN, MANY_UNANSWERED, ProblemKind, State, some
from npd6_xdp.core.verdict import Outcome
from npd6_xdp.core.vias import refused_vias
from npd6_xdp.tools.doctor import edits
from npd6_xdp.tools.doctor.facts import Facts
from npd6_xdp.tools.doctor.finding import Finding, Level, fail, note, ok, warn

_LOOKED_AT = {
    *(ProblemKind.NO_INTERFACE, ProblemKind.DETACHED, ProblemKind.DOWN, ProblemKind.RELOAD, ProblemKind.LOST),
    *(ProblemKind.DRIVER, ProblemKind.REFUSED, ProblemKind.RATE_LIMITED),
}
"""Problems that have a check of their own, with the mend."""
_LIMITED = {
    "neighbours": ("neighbours", "neighbours"),
    "kernel proxy entries": ("kernel_entries", "kernel_proxy_entries"),
}
"""Of what `refused` counts: the key of [limits], and where the status has those that are there."""


def checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of it."""
    status = facts.status
    if status is None:
        if facts.is_silent:
            again = ("systemctl restart npd6-xdp",) if _is_a_service(facts) else ()
            yield warn(
                "daemon", f"it is there, and doesn't answer: {facts.no_daemon}; {log(facts)} may say why", *again
            )
            return
        yield note("daemon", f"none to ask: {facts.no_daemon}", start(facts))
        return
    yield _state(facts, status)
    for row in status["interfaces"]:
        yield from _interface(facts, row)
    for what, count in status["refused"].items():
        if count:
            yield _refused(facts, status, what, count)
    yield from _in_vain(facts, status)
    for problem in status.get("problems", ()):
        if problem["kind"] not in _LOOKED_AT:
            yield warn("warning", f"the daemon warns: {problem['text']}")


def _state(facts: Facts, status: Mapping[str, Any]) -> Finding:
    """The daemon's own judgement. What it is about stands below."""
    said = f"npd6-xdp {status['build']['version']} runs, pid {status['pid']}: {status['headline']}"
    return ok("daemon", said) if status["headline"] == State.WORKING else note("daemon", said, _status(facts))


def _in_vain(facts: Facts, status: Mapping[str, Any]) -> Iterator[Finding]:
    """Rules under which nothing is answered. It is no problem: a scan of a prefix where nobody lives is so."""
    # who asks once, and is answered late, doesn't count for the rule
    late = {
        row["interface"]
        for row in status["interfaces"]
        if row["advertisements"].get("python", 0) > row["solicitations"].get(Outcome.ANSWERED_PYTHON, 0)
    }
    found = []
    for rule in status["rules"]:
        counts = rule["solicitations"]
        asked = sum(counts.get(outcome, 0) for outcome in IN_VAIN)
        if asked >= MANY_UNANSWERED and rule["interface"] not in late and not any(map(counts.get, ANSWERED)):
            found.append((rule["interface"], rule["rule"], asked))
    if found:
        _, prefix, _ = found[0]
        which = some([f"{name} {rule} ({asked:,} solicitations)" for name, rule, asked in found])
        why = f"`npd6-xdp trace --rule {shlex.quote(prefix)} --control {shlex.quote(str(facts.control.absolute()))}`"
        text = f"since the daemon's start nothing was answered under {which}"
        yield note("unanswered", f"{text}: {why} says why; where nobody lives there, that is a scan")


def _refused(facts: Facts, status: Mapping[str, Any], what: str, count: int) -> Finding:
    """What there was no space for: the limit that is to be higher, or that there is space by now."""
    key, rows = _LIMITED[what]
    limit, used = getattr(facts.config.limits, key), len(status.get(rows, ()))
    if used < limit:
        space = f"{used} of limits.{key} ({limit}) are there"
        text = f"{count} {what} were refused since the daemon's start; there is space now: {space}"
        return note("refused", f"{text}; {log(facts)} says whether it was the kernel that refused them")
    raised = edits.limit(facts.path, facts.text, key, 2 * limit)
    return warn(
        "refused",
        f"no space was left for {count} {what}: limits.{key} is {limit}; raise it",
        *edits.both(raised, (reload(facts),)),
    )


def file_checks(facts: Facts) -> Iterator[Finding]:
    """What there is to say of the file in use, against the one on disk."""
    if facts.status is not None:
        yield _file(facts, facts.status)


def is_of_another_file(facts: Facts) -> bool:
    """Whether the daemon goes by another configuration than the one that is looked at."""
    return facts.status is not None and _file(facts, facts.status).level is not Level.OK


def reload(facts: Facts) -> str:
    """The command that has the daemon read its file again."""
    return f"npd6-xdp reload --control {shlex.quote(str(facts.control.absolute()))}"


def _status(facts: Facts) -> str:
    """The command that has the daemon say its problems, each with what mends it."""
    return f"npd6-xdp status --control {shlex.quote(str(facts.control.absolute()))}"


def watch(facts: Facts, target: str) -> str:
    """The command that shows each question for the target as it is decided; tcpdump shows none that XDP takes in."""
    return f"npd6-xdp trace --target {target} --control {shlex.quote(str(facts.control.absolute()))}"


def log(facts: Facts) -> str:
    """Its log, and how to read that, for a sentence."""
    is_of_unit = _is_a_service(facts) and (facts.unit.properties or {}).get("ActiveState") in ("active", "reloading")
    return f"its log ({'`journalctl -u npd6-xdp -n 20`' if is_of_unit else 'the stderr that it was started with'})"


def start(facts: Facts) -> str:
    """The command that starts a daemon here."""
    if _is_a_service(facts):
        return "systemctl start npd6-xdp"
    return f"npd6-xdp run --config {shlex.quote(str(facts.path.absolute()))}"


def _is_a_service(facts: Facts) -> bool:
    return (facts.unit.properties or {}).get("LoadState") == "loaded"


def _file(facts: Facts, status: Mapping[str, Any]) -> Finding:
    used = Path(status["configuration"])
    if used.resolve() != facts.path.resolve():
        return warn(
            "file",
            f"the daemon uses {used}, and not {facts.path}: look at that one, or have it started with this",
            f"npd6-xdp doctor --config {shlex.quote(str(used))}",
        )
    if status["reload_error"]:
        why = "; ".join(status["reload_error"].splitlines())
        mend = () if refused_vias(facts.config, facts.links) else (reload(facts),)
        return fail("file", f"the daemon couldn't use {used}, and goes on with what it had: {why}", *mend)
    if facts.modified > status["last_reload"]:
        return warn(
            "file", f"{used} has changed since the daemon read it ({_time(status['last_reload'])})", reload(facts)
        )
    return ok("file", f"{used} is in use as it is, since {_time(status['last_reload'])}")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _trace(facts: Facts, outcome: str) -> str:
    return f"npd6-xdp trace --outcome {outcome} --control {shlex.quote(str(facts.control.absolute()))}"


def _interface(facts: Facts, row: Mapping[str, Any]) -> Iterator[Finding]:
    name, reason = row["interface"], row.get("attach_reason", "")
    link = facts.links.get(row["port"])
    if link is None:
        return  # said already
    if not row["attach"]:
        yield fail("attached", f"{name}: the daemon's program isn't on it; {log(facts)} says why", _status(facts))
    elif not row["up"]:
        yield fail(
            "attached",
            f"{name}: attached, and nothing comes in: it is down, or silent for tags beside its frames",
            _status(facts),
        )
    elif row["attach"] == "generic" and facts.config.attach(row["port"]) is Attach.AUTO and not link.lossy:
        why = f": {reason}" if reason else ""
        yield note("attached", f"{name}: in generic mode, which is slower{why}")
    else:
        why = f" ({reason})" if reason else ""
        yield ok("attached", f"{name}: {AttachMode(row['attach']).words()}{why}")
    if not row["active"]:
        yield note("standby", f"{name}: {row['role']}")
    if row["lost"]:
        yield warn(
            "lost",
            f"{name}: {row['lost']} solicitations were lost on their way to Python since the daemon's start: more came"
            f" than it could take; `{_trace(facts, 'lost')}` shows whose they are, and a lower events_per_source or"
            " limits.events_per_second keeps a flood from the others",
        )
    if count := row["solicitations"]["rate_limited"]:
        limits = ", ".join(f"{limit} {number}" for limit, number in row["rate_limited"].items() if number)
        text = f"{name}: {count} solicitations were refused ({limits}): `{_trace(facts, 'rate_limited')}` says whose"
        yield note("rate_limited", f"{text}, and by which key")
    if row["xdp_tx_errors"]:
        yield unsent(facts, row)


def unsent(facts: Facts, row: Mapping[str, Any]) -> Finding:
    """What the driver didn't send: in generic mode it is the kernel that sends."""
    name, port = row["interface"], row["port"]
    text = f"{name}: the driver dropped {row['xdp_tx_errors']} advertisements (xdp_tx_errors)"
    if row["attach"] != "native":
        return note("lost", f"{text}, and none any more: the program is in {row['attach']} mode now")
    place, wish = edits.interface_place(facts.path, facts.text, port), facts.config.attach(port)
    lossy = facts.links[port].lossy
    mode = Attach.AUTO if lossy and wish is not Attach.AUTO else Attach.GENERIC
    mend = edits.both(place.put({"attach": f'"{mode}"'}, "name"), (reload(facts),))
    return warn("lost", f'{text}: attach = "{mode}" loses none', *mend)
