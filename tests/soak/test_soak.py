# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak's one command: a minute of it under CI, its judgement, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.bench.machine import HOME
from tests.bench.test_quick import left_behind
from tests.netns.wire import until
from tests.soak.__main__ import miscounts
from tests.soak.ground import Driver
from tests.soak.samples import MIB, Sample, growths

_COMMAND = (sys.executable, "-m", "tests.soak")
_MINUTES = 1.0 if os.environ.get("CI") == "true" else 0.3

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="the soak needs root")


@needs_root
@pytest.mark.alone
def test_each_solicitation_is_counted_once_and_nothing_grows_while_the_machine_changes(tmp_path: Path) -> None:
    words = [*_COMMAND, "--minutes", str(_MINUTES), "--output", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOME)
    report, said = process.communicate(timeout=900 + _MINUTES * 60)
    print(said, report)
    assert process.returncode == 0
    assert said.splitlines()[-2].endswith("solicitations is counted once, and all is flat")
    assert left_behind(process.pid) == []
    assert (tmp_path / "report.md").read_text() == report
    assert "<polyline" in (tmp_path / "soak.svg").read_text()
    assert (tmp_path / "samples.csv").read_text().count("\n") > 8
    counted = {}
    for line in report.splitlines():
        if line.endswith("% |"):
            name, count = line.strip("| ").split(" | ")[:2]
            counted[name] = int(count.replace(",", ""))
    missing = {"answered_xdp", "answered_python", "kernel", "pending", "own", "ignored", "unmatched", "dad", "invalid"}
    missing |= {"absent", "monitored", "rate_limited"}
    assert {name for name in missing if not counted[name]} == set()


@needs_root
def test_a_soak_that_is_killed_leaves_nothing_to_the_next_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    words = [*_COMMAND, "--minutes", "5", "--output", str(tmp_path)]
    killed = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=HOME)
    assert until(lambda: daemons(killed.pid) != [], 20.0)
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    assert left_behind(killed.pid) != [], "as long as nobody has waited for it, nobody sweeps what it has left"
    killed.wait()
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=HOME, start_new_session=True
    ) as process:
        assert until(lambda: daemons(process.pid) != [], 20.0)
        assert left_behind(killed.pid) == []
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "soak: FAILED: interrupted" in said
    assert left_behind(process.pid) == []
    assert daemons(killed.pid) == daemons(process.pid) == []


def daemons(pid: int) -> list[str]:
    """The daemons of a soak that is, or was, this process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(f"/run/npd6-{pid}-".encode()) for word in words):
            found.append(path.parent.name)
    return found


SEEN = Driver(taken=100, refused=0, seen=100, returned=60)
BEFORE = Counter(answered_xdp=7, own=1)
ROUND = Counter(answered_xdp=60, own=40)


def test_a_round_in_which_each_is_counted_once_is_right() -> None:
    assert miscounts(100, 100, SEEN, BEFORE, BEFORE + ROUND, port=False) == []
    lossy = Driver(taken=100, refused=5, seen=100, returned=60)
    assert miscounts(105, 100, lossy, BEFORE, BEFORE + ROUND, port=False) == []
    assert miscounts(130, 100, Driver(110, 0, 105, 60), BEFORE, BEFORE + ROUND, port=True) == []


@pytest.mark.parametrize(
    ("counted", "driver", "sent", "word"),
    [
        (Counter(answered_xdp=60, own=39), SEEN, 100, "1 solicitations are missing"),
        (Counter(answered_xdp=60, own=42), SEEN, 100, "2 solicitations are counted twice"),
        (Counter(answered_xdp=61, own=39), SEEN, 100, "the driver sent 60 back"),
        (Counter(answered_xdp=60, own=40), SEEN, 99, "99 were sent, the port saw 100"),
        (Counter(answered_xdp=60, own=40), SEEN, 101, "100 came to the port"),
        (Counter(answered_xdp=-1), SEEN, 100, "counters went back"),
    ],
)
def test_a_round_that_is_not_says_what_is_wrong(counted: Counter[str], driver: Driver, sent: int, word: str) -> None:
    after = Counter({name: BEFORE[name] + counted[name] for name in BEFORE | counted})
    assert any(word in line for line in miscounts(sent, 100, driver, BEFORE, after, port=False))


def sample(time: float, **values: int) -> Sample:
    usual = {
        "resident": 60 * MIB,
        "private": 40 * MIB,
        "descriptors": 60,
        "threads": 2,
        "maps": 19,
        "map_capacity": 10**5,
    }
    all_of_it: dict[str, Any] = {**usual, "map_memory": 6 * MIB, **values}
    return Sample(time, **all_of_it)


def flat(**rows: list[int]) -> set[str]:
    count = len(next(iter(rows.values())))
    calm = [sample(10.0 * n, **{name: row[n] for name, row in rows.items()}) for n in range(count)]
    return {each.name for each in growths(calm) if not each.flat}


def test_what_grows_in_the_second_half_is_not_flat_and_what_grew_before_or_wavers_is() -> None:
    assert flat(private=[40 * MIB] * 16) == set()
    assert flat(private=[(20 + min(n, 8)) * MIB for n in range(16)]) == set(), "a start that fills"
    assert flat(private=[(40 + n % 2) * MIB for n in range(16)]) == set(), "what wavers"
    assert flat(private=[40 * MIB + n * MIB // 2 for n in range(16)]) == {"private"}
    short = [sample(10.0 * n, private=40 * MIB + n * MIB // 2) for n in range(16)]
    assert all(each.flat for each in growths(short, settled=False)), "3.5 MiB, while tables fill"
    leaking = [sample(10.0 * n, private=40 * MIB + n * 3 * MIB // 2) for n in range(16)]
    assert {each.name for each in growths(leaking, settled=False) if not each.flat} == {"private"}, "10.5 MiB"
    assert flat(descriptors=[60] * 15 + [61]) == {"descriptors"}
    assert flat(threads=[2 + n // 5 for n in range(16)]) == {"threads"}
    assert flat(map_capacity=[1000 * n for n in range(16)]) == {"map_capacity"}
    assert flat(map_capacity=[10**5 + n for n in range(16)]) == {"map_capacity"}
    for late in range(1, 8):
        assert flat(map_capacity=[10**5] * (16 - late) + [10**5 + 2] * late) == set(), "one rule more, by then"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0"], "argument --minutes: '0' is no number above 0"),
        (["--minutes", "nan"], "argument --minutes: 'nan' is no number above 0"),
        (["--solicitations", "many"], "argument --solicitations: 'many' is no whole number above 0"),
        pytest.param(["--output", "/dev/null"], "--output /dev/null: can't write there: File exists", marks=needs_root),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_begins(words: list[str], said: str) -> None:
    done = subprocess.run([*_COMMAND, *words], capture_output=True, text=True, check=False, cwd=HOME, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(said)
