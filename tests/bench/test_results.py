# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's own arithmetic, its table, and its judge of answers: pure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from npd6_xdp.core.icmpv6 import AdvertisementTemplate
from tests.bench.__main__ import main
from tests.bench.correct import wrong
from tests.bench.publish import PAGE, publish
from tests.bench.results import Figure, Results, at_least, at_most, middle, percentile, values_of
from tests.bench.table import markdown, number
from tests.frames import SETTING
from tests.netns.wire import EDGE, question, scan
from tests.netns.wire import SETTING as ASKER

TARGET = "2001:db8:1::7"


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [([], 0.99, 0.0), ([3.0], 0.99, 3.0), ([float(n) for n in range(1, 101)], 0.99, 99.0), ([2.0, 1.0], 0.5, 1.0)],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    values: list[float], share: float, wanted: float
) -> None:
    assert percentile(values, share) == wanted


def test_a_median_of_nothing_is_0() -> None:
    assert (middle([]), middle([3, 1, 2])) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [
        (at_most(6), 6.0, True),
        (at_most(6), 6.1, False),
        (at_least(20), 20.0, True),
        (at_least(20), 19.9, False),
        (None, 1.0, None),
    ],
)
def test_a_bound_holds_up_to_its_limit(bound: object, value: float, holds: bool | None) -> None:
    assert Figure(1, "x", value, "ns", bound).holds is holds  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.1234, "0.123"), (42.25, "42.2"), (123.4, "123"), (1234567.8, "1,234,568")]
)
def test_numbers_have_three_digits_that_mean_something(value: float, text: str) -> None:
    assert number(value) == text


def test_the_table_has_a_line_for_each_figure_and_says_what_is_missing(tmp_path: Path) -> None:
    results = Results({"kernel": "Linux"}, quick=False)
    results.figures += [Figure(2, "b", 160.0, "ns", at_most(150), note="why"), Figure(1, "a", 1.0, "ns", at_most(6))]
    results.sampled("x", 10, 0)
    results.sampled("x", 10, 1)
    results.broken[3] = "RuntimeError: no"
    lines = markdown(results).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[2:] == [
        ["1", "a", "1 ns", "at most 6", "yes", ""],
        ["2", "b", "160 ns", "at most 150", "no", "why"],
    ]
    assert "- x: 20 answers looked at, 1 of them wrong" in lines
    assert "- row 3 was not measured: RuntimeError: no" in lines
    results.write(tmp_path / "results.json")
    assert [figure["holds"] for figure in json.loads((tmp_path / "results.json").read_text())["figures"]] == [
        False,
        True,
    ]


def test_a_ratio_is_the_median_of_those_of_neighbours() -> None:
    results = Results({}, quick=False)
    value = results.ratio(5, "x", [(10.0, 2.0), (9.0, 3.0), (100.0, 1.0)], at_least(4), "why")
    (figure,) = results.figures
    assert value == figure.value == 5.0
    assert (figure.holds, figure.unit, figure.note) == (True, "times", "why")
    assert figure.raw == {"one": [10.0, 9.0, 100.0], "the other": [2.0, 3.0, 1.0]}


def test_an_older_run_stands_beside_the_figures_that_it_has_too(tmp_path: Path) -> None:
    before, now = (Results({}, quick=False) for _ in range(2))
    before.figures += [Figure(2, "b", 80.0, "ns"), Figure(2, "gone", 1.0, "ns"), Figure(3, "nothing", 0.0, "NS")]
    now.figures += [Figure(3, "nothing", 2.0, "NS"), Figure(2, "b", 160.0, "ns", at_most(150)), Figure(2, "new", 1, "")]
    before.write(tmp_path / "results.json")
    lines = markdown(now, values_of(tmp_path / "results.json")).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0][:6] == ["#", "figure", "measured", "before", "now / before", "must be"]
    assert [row[1:6] for row in rows[2:]] == [
        ["b", "160 ns", "80 ns", "2", "at most 150"],
        ["new", "1", "", "", ""],
        ["nothing", "2 NS", "0 NS", "", ""],
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"figures": [{"row": 1}]}', '{"figures": 1}'])
def test_what_is_no_run_of_the_benchmark_is_not_compared_with(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    assert main(["--quick", "--rows", "1", "--compare", str(file)]) == 1
    assert capsys.readouterr().err.startswith("bench: ")


def test_publishing_replaces_what_stands_between_the_marks(tmp_path: Path) -> None:
    folder, page, plots = tmp_path / "results", tmp_path / "benchmark.md", tmp_path / "benchmark"
    first = tmp_path / "first"
    for place, value in ((first, 170.0), (folder, 128.0)):
        place.mkdir()
        run = Results(
            {}, quick=False, figures=[Figure(2, "an answer", value, "ns", at_most(150)), Figure(2, "y", 1, "")]
        )
        run.write(place / "results.json")
    plots.mkdir()
    (folder / "table.md").write_text("| new |\n")
    (folder / "growth.svg").write_text("<svg/>")
    (plots / "gone.svg").write_text("<svg/>")
    before, between, after = PAGE.read_text().partition("<!-- results")[0], "| old |", "\nafter\n"
    mark = next(line for line in PAGE.read_text().splitlines() if line.startswith("<!-- results"))
    page.write_text(f"{before}{mark}\n\n{between}\n\n<!-- end of results -->{after}")
    publish([first, folder], page, plots)
    text = page.read_text()
    assert text.startswith(before)
    assert text.endswith(after)
    assert "| new |" in text
    assert "| 2 | an answer | 170 ns | 128 ns | at most 150 | 1 of 2 |" in text
    assert "![growth](benchmark/growth.svg)" in text
    assert between not in text
    assert [path.name for path in plots.iterdir()] == ["growth.svg"]


def answer(target: bytes, **changed: bytes) -> bytes:
    fields = {"to": ASKER.asker_mac, "source": target, "destination": ASKER.asker_global, **changed}
    template = AdvertisementTemplate(changed.get("mac", EDGE), b"", router=True)
    return template.fill(fields["to"], fields["source"], fields["destination"], target, solicited=True)


def test_a_right_answer_is_right() -> None:
    asked = [question(TARGET, source=ASKER.asker_global), *scan(1, first=0)]
    assert wrong([answer(frame[62:78]) for frame in asked], asked, ours=True) == []


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (answer(SETTING.target), "target"),
        (answer(question(TARGET)[62:78], to=bytes.fromhex("020000000099")), "destination"),
        (answer(question(TARGET)[62:78], destination=SETTING.target), "destination"),
        (answer(question(TARGET)[62:78], mac=bytes.fromhex("020000000099")), "link-layer address"),
        (answer(question(TARGET)[62:78], source=SETTING.target), "source"),
        (answer(question(TARGET)[62:78])[:-1] + b"\0", "checksum"),
        (question(TARGET), "no advertisement"),
    ],
)
def test_a_wrong_answer_is_found(frame: bytes, fault: str) -> None:
    asked = [question(TARGET, source=ASKER.asker_global)]
    (found,) = wrong([frame], asked, ours=True)
    assert fault in found


def test_only_our_own_answers_must_have_our_flags_and_source() -> None:
    asked = [question(TARGET, source=ASKER.asker_global)]
    frame = answer(asked[0][62:78], source=ASKER.target)
    assert wrong([frame], asked, ours=True)
    assert wrong([frame], asked, ours=False) == []
