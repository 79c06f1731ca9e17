"""The evaluation of `make bench`: medians, exponents, tables, rounds. Nothing is measured."""

import time
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.comparison import Run, summary
from benchmarks.competitors import BATCH, CEILING, DLT_TUNED, SCRAPY
from benchmarks.figures import (
    Spread,
    cell,
    exponent,
    number,
    percent,
    repeated,
    rounded,
    share_of_limit,
    table,
)
from benchmarks.report import write_report
from benchmarks.side_by_side import Schedule, Turn


def test_a_run_without_a_figure_is_left_out_of_the_median_instead_of_counting_as_zero() -> None:
    spread = Spread.of([487.0, None, 501.0, 460.0])
    assert spread == Spread(median=487.0, least=460.0, most=501.0, runs=3)
    assert Spread.of([None]) is None


def test_cells_say_the_spread_where_there_is_one() -> None:
    assert cell(Spread.of([487.2, 501, 460])) == "487 (460–501)"
    assert cell(Spread.of([14.5])) == "14.5"
    assert cell(None) == "–"
    assert percent(Spread.of([0.981, 0.99, 0.985])) == "98.5 % (98.1–99.0)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(2154.6, "2,155"), (14.512, "14.5"), (0.00123456, "0.00123"), (0, "0"), (None, "–")],
)
def test_numbers_have_three_digits_that_count(value: float | None, text: str) -> None:
    assert number(value) == text


def test_rounding_keeps_whole_numbers() -> None:
    assert (rounded(18_865), rounded(0.0123456), rounded(0)) == (18_865, 0.01235, 0)


def test_the_share_of_a_limit_counts_intervals_not_calls() -> None:
    assert share_of_limit(301, first=10.0, last=40.0, limit=10) == pytest.approx(1.0)
    assert share_of_limit(1, first=10.0, last=10.0, limit=10) is None


def test_the_exponent_tells_constant_linear_and_quadratic_growth_apart() -> None:
    sizes = [256, 2_560, 18_865]
    assert exponent(sizes, [7, 7, 7]) == pytest.approx(0)
    assert exponent(sizes, [3 * size for size in sizes]) == pytest.approx(1)
    assert exponent(sizes, [size**2 for size in sizes]) == pytest.approx(2)
    assert exponent([256, 256], [1, 2]) is None
    assert exponent(sizes, [0, 0, 1]) is None, "one point has no slope"


def test_answers_beyond_the_first_are_repeated() -> None:
    assert repeated({"a|random": 1, "b|random": 3}) == 2


def test_a_bar_in_a_name_does_not_break_the_table() -> None:
    assert table(["", "x"], [["a|b", "1"]]).splitlines() == [
        "|  | x |",
        "| --- | ---: |",
        r"| a\|b | 1 |",
    ]


def test_everybody_has_a_turn_in_every_round_and_another_one_begins() -> None:
    played: list[str] = []
    turns = [Turn(name=name, play=lambda name=name: played.append(name)) for name in "abc"]  # type: ignore[misc]
    turns.append(Turn(name="once", play=lambda: played.append("once"), rounds=1))
    Schedule(turns=turns, rounds=3, deadline=float("inf")).run(Console(file=StringIO()))
    assert {name: played.count(name) for name in played} == {"a": 3, "b": 3, "c": 3, "once": 1}
    assert [played[0], played[4], played[7]] == ["a", "b", "c"]


def test_a_turn_that_does_not_fit_any_more_is_left_out_and_counted() -> None:
    played: list[str] = []
    schedule = Schedule(
        turns=[
            Turn(name="long", play=lambda: played.append("long"), taken=1_000),
            Turn(name="short", play=lambda: played.append("short")),
        ],
        rounds=2,
        deadline=time.monotonic() + 100,
    )
    schedule.run(Console(file=StringIO()))
    assert played == ["short", "short"]
    assert schedule.left_out == {"long": 2}


def _result() -> dict[str, Any]:
    def runs(*rates: float) -> dict[str, Any]:
        return summary(
            [Run(searches=3_840, calls_per_second=rate, places=11_072) for rate in rates]
        )

    return {
        "measured": "2026-11-25 10:00 UTC",
        "seconds": 1200,
        "machine": {
            "cores": 2,
            "cpu": "a processor",
            "memory_gib": 8,
            "load_average_before": [0.1, 0.2, 0.3],
        },
        "versions": {"dlt": "1.31.0"},
        "left_out": {"60 ms: somebody": 1},
        "scenarios": {
            "no latency, no limit": {
                CEILING.name: runs(2_000, 2_200, 2_100),
                BATCH.name: runs(525, 520, 530),
                DLT_TUNED.name: runs(490, 480, 470),
                SCRAPY.name: summary([Run(searches=3_840, failure="Traceback\nMemoryError")]),
            },
            "60 ms, limit 10/s": {
                BATCH.name: summary([Run(searches=180, share_of_limit=0.99, refused_share=0.0)])
            },
        },
        "killed": {
            DLT_TUNED.name: {
                "searches": 720,
                "failures": [],
                "repeated": {"median": 360, "min": 355, "max": 370, "runs": 3},
                "runs": [{}, {}, {}],
            }
        },
        "database": {
            "counts": {BATCH.name: {"statements_per_search": 9.1, "commits_per_search": 2.2}},
            "sizes": {},
        },
    }


def test_the_report_shows_medians_ratios_and_whatever_failed(tmp_path: Path) -> None:
    text = write_report(_result(), tmp_path)
    assert text == (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"| {CEILING.name} | 3,840 | 2,100 (2,000–2,200) |" in text
    assert (
        f"Calls per second of {BATCH.name}: 1.09 of {DLT_TUNED.name}, 0.25 of {CEILING.name} (1 "
        "is as many)." in text
    )
    assert f"| {SCRAPY.name} | 3,840 | – |" in text
    assert f"- no latency, no limit: {SCRAPY.name} failed: MemoryError" in text
    assert "99.0 %" in text
    assert f"| {DLT_TUNED.name} | 720 | 360 (355–370) | – |" in text
    assert "left out 1 times for want of time: 60 ms: somebody" in text
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
