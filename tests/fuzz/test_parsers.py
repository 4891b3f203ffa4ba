# SPDX-License-Identifier: GPL-2.0-or-later
"""A slice of `python -m tests.fuzz.parsers`, with a fresh seed, which is printed; and that it finds what is wrong."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from npd6_xdp.core import plain_toml
from tests.fuzz import growth
from tests.fuzz.growth import FAMILIES, Family, slow
from tests.fuzz.parsers import fuzz, main
from tests.fuzz.targets import Target, targets

SEED = random.SystemRandom().randrange(1 << 32)
PIECES = 1 << 16  # bytes at most of what is said again and again


@pytest.mark.parametrize("name", targets())
def test_no_bytes_raise_anything_but_what_is_documented(name: str) -> None:
    print(f"seed {SEED}")
    assert fuzz(targets()[name], SEED, 40) is None


def test_no_time_grows_faster_than_the_input() -> None:
    """Of some kinds of input each time, which the seed chooses; `python -m tests.fuzz.parsers` takes all."""
    print(f"seed {SEED}")
    chosen = random.Random(SEED).sample(FAMILIES, 14)  # noqa: S311
    slower = {f"{each.target}, {each.name}": slow(targets()[each.target], each.of, PIECES) for each in chosen}
    assert {name: why for name, why in slower.items() if why} == {}


def test_what_is_wrong_is_found_and_made_small() -> None:
    def check(data: bytes) -> None:
        if b"{" in data[10:]:
            raise KeyError("a brace too many")

    found = fuzz(Target("braces", check, (b"a" * 40,), (b"{", b"}")), 1)
    assert found
    assert found.why.startswith("KeyError: 'a brace too many'")
    assert len(found.data) < 20


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
