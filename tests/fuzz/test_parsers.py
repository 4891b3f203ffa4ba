# SPDX-License-Identifier: GPL-2.0-or-later
"""A slice of `python -m tests.fuzz.parsers`, with a fresh seed, which is printed; and that it finds what is wrong."""

from __future__ import annotations

import itertools
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from npd6_xdp.core import plain_toml
from tests.fuzz import INSTALL_ATHERIS, growth, parsers
from tests.fuzz.growth import FAMILIES, Family, slow
from tests.fuzz.parsers import fuzz, fuzz_for, grow, main
from tests.fuzz.targets import Target, targets
from tests.roots import PROJECT

SEED = random.SystemRandom().randrange(1 << 32)
CI = os.environ.get("CI") == "true"
SECONDS = 1.5  # of processor time for each target under CI; of so many families as take GROWING
GROWING = 8.0


@pytest.mark.parametrize("name", targets())
def test_no_bytes_raise_anything_but_what_is_documented(name: str) -> None:
    print(f"seed {SEED}")
    done, found = fuzz_for(targets()[name], SEED, SECONDS) if CI else (40, fuzz(targets()[name], SEED, 40))
    print(f"{name}: {done:,} inputs")
    assert found is None, str(found)


def test_no_time_grows_faster_than_the_input() -> None:
    """Of some kinds of input each time, which the seed chooses; `python -m tests.fuzz.parsers --growth` takes all."""
    print(f"seed {SEED}")
    chosen = random.Random(SEED).sample(FAMILIES, len(FAMILIES))  # noqa: S311
    done, ends = 0, time.process_time() + GROWING
    for found in grow("", chosen if CI else chosen[:14]):
        assert found is None, str(found)
        done += 1
        if time.process_time() > ends:
            break
    print(f"{done} of {len(FAMILIES)} kinds of repetition")


def test_each_target_has_kinds_of_repetition() -> None:
    assert {family.target for family in FAMILIES} == set(targets())


def test_what_is_wrong_is_found_and_made_small() -> None:
    def check(data: bytes) -> None:
        if b"{" in data[10:]:
            raise KeyError("a brace too many")

    found = fuzz(Target("braces", check, (b"a" * 40,), (b"{", b"}")), 1)
    assert found
    assert found.why.startswith("KeyError: 'a brace too many'")
    assert len(found.data) < 20
    again = "python -m tests.fuzz.parsers --only 'braces' --by hypothesis --seed 1 --seconds 1"
    assert str(found).endswith(f"\n  again: {again}")


def test_what_is_wrong_is_found_again_by_the_command_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in time that is over before the first bytes come."""

    def check(data: bytes) -> None:
        assert b"{}" not in data

    target = Target("braces", check, (b"a" * 40,), (b"{", b"}"))
    monkeypatch.setattr(parsers, "targets", lambda: {"braces": target})
    done, found = fuzz_for(target, SEED, 60.0)
    assert found, done
    again = str(found).rpartition("parsers ")[2].replace("'", "").split()
    assert main([*again[:-1], "1e-9"]) == 1
    assert str(found) in capsys.readouterr().out


def test_time_that_grows_is_found_again_by_the_command_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parsers, "slow", lambda target, of, largest: "too long" if target.name == "event" else "")
    (found,) = grow("event", FAMILIES)
    assert str(found).endswith("again: python -m tests.fuzz.parsers --only 'event' --growth")
    assert main(["--only", "event", "--growth"]) == 1
    assert str(found) in capsys.readouterr().out


def _second_for_first(text: str) -> str:
    return re.sub(r'\]\]\n(\w+) = (".*")\n(\w+) = (".*")\n', r"]]\n\1 = \4\n\3 = \2\n", text)


def _one_of_two(text: str) -> str:
    return re.sub(r']]\n(\w+) = (".*")\n\w+ = ".*"\n', r"]]\n\1 = \2\n", text)


def _true(text: str) -> str:
    return text.replace("false", "true")


@pytest.mark.parametrize("misread", [_second_for_first, _one_of_two, _true])
def test_what_plain_toml_reads_wrong_is_found(misread: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the three lines that it reads in one: the strings change places, or one is left out. And a value of others."""
    read = plain_toml.read
    monkeypatch.setattr(plain_toml, "read", lambda text, *known: read(misread(text), *known))
    found = fuzz(targets()["config"], 1, 5000)
    assert found
    assert found.why.startswith(("AssertionError", "TOMLDecodeError"))


def test_time_that_grows_with_the_square_is_found() -> None:
    def check(data: bytes) -> None:
        for at in range(0, len(data), 4):
            sum(data[at::4])

    # as many pieces as it takes on this machine until a time says something
    assert "times as long" in slow(Target("squares", check, (b"x",)), Family("squares", "x").of)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("stretched", [*itertools.product((1, 4), repeat=4)])
def test_growth_is_told_whatever_a_busy_machine_stretches(
    power: int, stretched: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times are made here: the first ones that are long enough to say anything, each as it is or stretched."""
    clock, factors = [0.0], iter(stretched)

    def check(data: bytes) -> None:
        took = 1e-6 * len(data) if power == 1 else 1e-8 * len(data) ** 2
        clock[0] += took * (next(factors, 1) if took > 0.005 else 1)

    monkeypatch.setattr(growth, "time", SimpleNamespace(thread_time=lambda: clock[0]))
    told = slow(Target("made", check, (b"x",)), Family("made", "x").of)
    assert ("times as long" in told) is (power == 2), told


@pytest.mark.parametrize("seconds", ["0", "nan", "a minute"])
def test_a_time_that_is_none_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--seconds", seconds])
    assert f"argument --seconds: '{seconds}' is no number above 0" in capsys.readouterr().err


@pytest.mark.skipif(parsers.ATHERIS, reason="atheris is here")
def test_where_atheris_is_missing_one_line_says_how_to_have_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--by", "atheris"]) == 2
    assert capsys.readouterr().err == f"parsers: atheris isn't installed: {INSTALL_ATHERIS}\n"
    assert main(["--only", "pcap", "--seconds", "1e-9"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith(f" by hypothesis (atheris finds faults sooner: {INSTALL_ATHERIS})")
    words = (sys.executable, "-m", "tests.fuzz.coverage", "pcap", "1", "1")
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=60.0, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"coverage: atheris isn't installed: {INSTALL_ATHERIS}\n"
