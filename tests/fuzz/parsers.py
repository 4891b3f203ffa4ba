# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tests.fuzz.parsers [--seconds N] [--seed S] [--only NAME]`: any bytes into the parsers, none may fail.

Each target gets its share of the time: bytes made of its samples, cut, mixed and changed (no exception but the
documented), and pieces said again and again (no time that grows faster than the input). The bytes are atheris's where
that is installed, which finds what is wrong sooner, else hypothesis's. What is found is made small, printed with the
command that finds it again, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from tests.arguments import positive
from tests.fuzz import INSTALL_ATHERIS
from tests.fuzz.growth import FAMILIES, Family, at_random, slow
from tests.fuzz.targets import Target, targets

ATHERIS = find_spec("atheris") is not None
ENGINES = ("atheris", "hypothesis") if ATHERIS else ("hypothesis",)
"""What makes the bytes: those that there are here, the first one unless it is said otherwise."""
_ROUND = 200
_REPEATING = 0.25  # of the time for kinds of repetition that were thought of, in the order that the seed says
_EXPLORING = 0.8  # of the rest, where it is atheris's
_SMALL = 1 << 16  # bytes of what is looked at for its time, at random
_ODD = (0, 1, 0x7F, 0x80, 0xFF)


@dataclass(frozen=True)
class Finding:
    """What went wrong with which bytes."""

    target: str
    why: str
    data: bytes | str
    seed: int
    by: str = "hypothesis"
    """Of ENGINES, what has made them; or "growth": one of FAMILIES."""

    def __str__(self) -> str:
        again = f"python -m tests.fuzz.parsers --only '{self.target}'"
        again += " --growth" if self.by == "growth" else f" --by {self.by} --seed {self.seed} --seconds 1"
        return f"{self.target}: {self.why}\n  by {self.data!r:.2000}\n  again: {again}"


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Bytes for a target: mostly a good sample that a few edits were made to."""
    share = st.floats(0, 1)
    sample = st.sampled_from(target.samples)
    piece = st.binary(max_size=12) | st.sampled_from((*target.words, *(bytes([odd]) for odd in _ODD)))
    if target.words:
        piece |= st.lists(st.sampled_from(target.words), max_size=4).map(b"".join)
    edit = st.tuples(share, st.sampled_from((0, 0, 1, 1, 2, 4, 30)), piece)
    edited = st.builds(_edited, sample, st.lists(edit, min_size=1, max_size=5))
    crossed = st.builds(lambda a, b, x, y: a[: int(len(a) * x)] + b[int(len(b) * y) :], sample, sample, share, share)
    mixed = st.lists(st.sampled_from((*target.words, b"\n", b" ")) | st.binary(max_size=6), max_size=20).map(b"".join)
    return edited | edited | crossed | mixed | st.binary(max_size=200)


def _edited(data: bytes, edits: Sequence[tuple[float, int, bytes]]) -> bytes:
    for where, gone, piece in edits:
        at = int(where * len(data))
        data = data[:at] + piece + data[at + gone :]
    return data


def fuzz(target: Target, seed: int, examples: int = _ROUND) -> Finding | None:
    """So many inputs for a target: what fails, made small."""
    last = b""

    @seeded(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(inputs(target))
    def check(data: bytes) -> None:
        nonlocal last
        last = data
        target.check(data)

    try:
        with warnings.catch_warnings(action="ignore"):  # that what it shows is long
            check()
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {str(error)[:300]} ({place.filename}:{place.lineno})"
        return Finding(target.name, why, last, seed)
    return None


def fuzz_for(target: Target, seed: int, seconds: float) -> tuple[int, Finding | None]:
    """The same by seeds from this one on, for so many seconds of processor time: how many inputs; what fails first."""
    done, ends = 0, time.process_time() + seconds
    while not done or time.process_time() < ends:
        if found := fuzz(target, seed + done // _ROUND):
            return done, found
        done += _ROUND
    return done, None


def grow(only: str, families: Iterable[Family]) -> Iterator[Finding | None]:
    """What of FAMILIES takes longer than in proportion, a step for each."""
    for family in families:
        if only in ("", family.target):
            why = slow(targets()[family.target], family.of, _SMALL)
            yield Finding(family.target, f"{family.name}: {why}", family.name, 0, "growth") if why else None


def repeat(target: Target, seed: int) -> Finding | None:
    """One piece again and again: whether its time grows faster than it."""
    of, what = at_random(target, random.Random(seed))  # noqa: S311
    why = slow(target, of, _SMALL)
    return Finding(target.name, why, what, seed) if why else None


def explore(target: Target, seed: int, seconds: float) -> tuple[int, Finding | None]:
    """One target under atheris for so long: how many inputs it had, and the first fault."""
    words = (sys.executable, "-m", "tests.fuzz.coverage", target.name, str(seed), str(seconds))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    try:
        said = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):  # it hung for 20 s, or was killed
        return 0, Finding(target.name, f"exit status {done.returncode}: {done.stderr[-600:]}", "?", seed, "atheris")
    why = said.get("why")
    return said["runs"], Finding(target.name, why, bytes.fromhex(said["data"]), seed, "atheris") if why else None


def run(seconds: float, seed: int, only: str = "", by: str = ENGINES[0]) -> list[Finding]:
    """All targets, for so long, each once at least; the same seed finds the same again, as far as the time reaches."""
    known = {name: target for name, target in targets().items() if only in ("", name)}
    done = dict.fromkeys(known, 0)
    found: list[Finding] = []
    ends = time.monotonic() + seconds

    def note(finding: Finding | None) -> None:
        if finding and all(finding.why[:60] != other.why[:60] for other in found):
            found.append(finding)
            print(finding, flush=True)

    repeating = time.monotonic() + seconds * _REPEATING
    for finding in grow(only, random.Random(seed).sample(FAMILIES, len(FAMILIES))):  # noqa: S311
        note(finding)
        if time.monotonic() >= repeating:
            break
    if by == "atheris":
        share = max(1.0, (ends - time.monotonic()) * _EXPLORING / len(known))
        for name, target in known.items():
            done[name], finding = explore(target, seed, share)
            note(finding)
    turn = seed
    while turn == seed or time.monotonic() < ends:
        for name, target in known.items():
            if turn > seed and time.monotonic() >= ends:
                break
            if by == "hypothesis":
                note(fuzz(target, turn))
                done[name] += _ROUND
            if by == "atheris" or turn % 4 == seed % 4:
                note(repeat(target, turn))
        turn += 1
    print("; ".join(f"{name} {count:,}" for name, count in done.items()))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """0: nothing was found; 1: something was; 2: wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.parsers", description=__doc__)
    parser.add_argument("--seconds", type=positive, default=60.0, help="how long, all targets together (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run (default: a fresh one, printed)")
    parser.add_argument("--only", choices=sorted(targets()), default="", help="one target")
    parser.add_argument("--by", choices=("atheris", "hypothesis"), default=ENGINES[0], help="what makes the bytes")
    parser.add_argument("--growth", action="store_true", help="only look at times: all kinds of repetition, once")
    arguments = parser.parse_args(argv)
    if arguments.by not in ENGINES:
        print(f"parsers: atheris isn't installed: {INSTALL_ATHERIS}", file=sys.stderr)
        return 2
    if arguments.growth:
        found = [finding for finding in grow(arguments.only, FAMILIES) if finding]
        print(*found, sep="\n", end="\n" if found else "")
    else:
        seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
        hint = "" if ATHERIS else f" (atheris finds faults sooner: {INSTALL_ATHERIS})"
        print(f"parsers: seed {seed}, {arguments.seconds:.0f} s, by {arguments.by}{hint}", flush=True)
        found = run(arguments.seconds, seed, arguments.only, arguments.by)
    print(f"parsers: {len(found)} faults found" if found else "parsers: no fault found")
    return 1 if found else 0


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        print("parsers: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
