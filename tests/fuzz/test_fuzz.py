# SPDX-License-Identifier: GPL-2.0-or-later
"""A slice of the fuzzer, half of it by tc, with fresh seeds; it finds faults, and says what it takes to mend them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from random import SystemRandom

import pytest

from npd6_xdp.core.verdict import Limit, Outcome, Reason
from tests.fuzz import __main__ as command
from tests.fuzz.configurations import CONFIGURATIONS
from tests.fuzz.mutants import MUTANTS, MutantError, apply
from tests.fuzz.program import CHUNK

ROOT = Path(__file__).resolve().parents[2]
# A minute under CI; the frames take a fifth of it.
HALF = ("--seconds", "30") if os.environ.get("CI") == "true" else ("--frames", "500,000")
MUTANTS_IN_CI = 2
PYTHONS = {Outcome.ANSWERED_PYTHON, Outcome.PENDING, Outcome.FAILED}
"""Outcomes that the program itself counts nothing under."""
LIMITS = {Limit.CROWDED, Limit.NEW_TARGET}
"""Limits that a configuration there has; the others are of time, or Python's."""


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, which leaves this machine's network by itself. What it prints is shown when a test fails."""
    if os.geteuid() != 0:
        pytest.skip("loading an XDP program needs root")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    print(done.stdout, done.stderr, sep="\n")
    return done


@pytest.mark.parametrize("by_tc", [False, True], ids=["by XDP", "by tc"])
def test_the_program_and_the_reference_agree_on_all_frames(by_tc: bool) -> None:
    done = fuzz(*HALF, *["--tc"] * by_tc)
    assert done.returncode == 0
    for configuration in (each for each in CONFIGURATIONS if not (by_tc and each.is_guarded)):
        assert re.search(rf"^ +{configuration.name} +[0-9,]+ frames$", done.stdout, re.MULTILINE), configuration.name
    (counted,) = re.findall("of these: (.*)", done.stdout)
    came = set(re.findall("([a-z_]+) [0-9]", counted))
    assert came == {*Reason, *Outcome, "handed_up", *(f"by_{limit}" for limit in LIMITS)} - PYTHONS, (
        "all that can come of a frame has come of some"
    )


def test_faults_in_the_program_are_found() -> None:
    """Some of them; deploy/fuzz.sh --mutants looks for all."""
    chosen = [mutant.name for mutant in SystemRandom().sample(MUTANTS, MUTANTS_IN_CI)]
    assert fuzz("--mutants", *chosen).returncode == 0, chosen


def test_the_documentation_says_how_many_frames_it_takes_until_each_configuration_has_had_some() -> None:
    by_tc = sum(not each.is_guarded for each in CONFIGURATIONS)
    text = " ".join((ROOT / "docs" / "fuzz.md").read_text().split())
    assert f"takes {len(CONFIGURATIONS) * CHUNK:,} frames until each has had one ({by_tc * CHUNK:,} by tc)" in text


def test_each_fault_is_put_into_one_place_of_the_program(tmp_path: Path) -> None:
    assert len(MUTANTS) == len({mutant.name for mutant in MUTANTS}) >= 20
    for mutant in MUTANTS:
        directory = Path(shutil.copytree(ROOT / "bpf", tmp_path / mutant.name))
        apply(mutant, directory)
        changed = [
            path for path in directory.glob("*.[ch]") if path.read_text() != (ROOT / "bpf" / path.name).read_text()
        ]
        assert len(changed) == 1, mutant.name
        with pytest.raises(MutantError, match="stands 0 times in bpf/, not once"):
            apply(mutant._replace(old="what stands nowhere"), directory)


@pytest.mark.parametrize("tc", [[], ["--tc"]], ids=["by XDP", "by tc"])
def test_a_difference_is_said_with_all_that_it_takes_to_see_it_again(tc: list[str]) -> None:
    fault = ("--fault", "hop-limit", *tc)
    done = fuzz("--seed", "1", "--frames", "20,000", *fault)
    assert done.returncode == 1
    assert "DIFFERENCE in configuration static" in done.stdout
    assert "reference: XDP_PASS counted as invalid (hop_limit) of entry 0" in done.stdout
    assert 'prefix = "2001:db8::/32"' in done.stdout, "the configuration"
    (frame, *_) = re.findall("^frame, by wan0: ([0-9a-f]+)$", done.stdout, re.MULTILINE)
    (smallest,) = re.findall("^smallest: +([0-9a-f]+)$", done.stdout, re.MULTILINE)
    assert len(smallest) <= len(frame)
    again = re.findall("^again: +deploy/fuzz.sh (.*)$", done.stdout, re.MULTILINE)
    assert again[0] == " ".join(("--seed 1 --chunk static/0", *fault))
    assert again[1] == " ".join((f"--configuration static --frame {smallest}", *fault))
    assert "DIFFERENCE in configuration static: " in fuzz(*again[1].split()).stdout
    repeated = fuzz(*again[0].split())
    assert repeated.returncode == 1
    assert repeated.stdout.splitlines()[1:3] == done.stdout.splitlines()[1:3], "the same frame"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frames", "ten"], "argument --frames: 'ten' is no whole number"),
        (["--frames", "0"], "argument --frames: 0 is less than 1"),
        (["--frames", "1", "--seconds", "1"], "--frames and --seconds don't go together"),
        (["--mutants", "--parsers"], "--mutants and --parsers don't go together"),
        (["--mutants", "--frames", "9"], "--mutants goes with neither --frames nor --seconds"),
        (["--chunk", "static/0"], "--chunk takes the --seed that it is of"),
        (["-c", "statik"], "argument --configuration/-c: there is no configuration 'statik'; there are: static, "),
        (["--frame", "00"], "argument --frame: a frame has 14 to 3,400 bytes, not 1"),
        (["--frame", "0" * 28], "--frame takes one --configuration"),
        (["--mutants", "none"], "there is no fault 'none'; there are: hop-limit, "),
        (["--fault", "none"], "there is no fault 'none'; there are: hop-limit, "),
        (["--chunk", "static", "--seed", "1"], "argument --chunk: 'static' is no NAME/NUMBER, such as static/0"),
        (["--port", "wan0"], "--port goes with --frame"),
        (["--port", "x", "-c", "static", "--frame", "0" * 28], "configuration static has no port 'x'; there are: wan0"),
        (["--mutants", "--tc"], "--mutants goes without --tc"),
        (["--tc", "-c", "guarded"], "--tc goes without configuration guarded: tc sees the tags beside frames"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fuzz.sh", *arguments])
    try:
        code: object = command.main()
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fuzz: {said}")
    assert error.count("\n") == 1
