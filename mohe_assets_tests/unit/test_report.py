"""The report from rows alone: its tables, and a picture that needs no font of the machine."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.ft2font import FT2Font
from pylopdf_fonts_ko import sans_path

from mohe_assets.domain.forecast import CollectionForecast, Forecast
from mohe_assets.publishing.catalog import COLUMNS
from mohe_assets.publishing.report import FAILED_SHOWN, CollectionSnapshot, markdown
from mohe_assets.publishing.report_chart import can_draw, dots_of, draw
from mohe_assets.store.reads.report import RegionRow, TimelineRow

NOW = dt.datetime(2026, 11, 25, 6, 0, tzinfo=dt.UTC)


def region(
    code: str = "11680", status: str = "COMPLETED", places: int = 1, reason: str = ""
) -> RegionRow:
    return RegionRow(
        region_code=code,
        region_name="서울특별시 강남구",
        sido_name="서울특별시",
        status=status,
        places=places,
        failure_kind="transient",
        failures=1,
        retry_at=None,
        error_message=reason,
    )


def report(*regions: RegionRow) -> str:
    done = Forecast(calls=0, days=0, done_at=NOW)
    standing = CollectionSnapshot(
        at=NOW,
        regions=regions,
        timeline=(),
        places=0,
        api=None,
        left=CollectionForecast(base_plan=done, with_refinement=done),
    )
    return markdown(standing, picture="report.png")


def test_without_the_extra_charts_the_report_names_it_in_place_of_the_picture() -> None:
    code = (
        "import sys; sys.modules |= {'matplotlib': None, 'pylopdf_fonts_ko': None}\n"
        "from mohe_assets.publishing import report_chart; assert not report_chart.can_draw()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert can_draw()
    done = Forecast(calls=0, days=0, done_at=NOW)
    left = CollectionForecast(base_plan=done, with_refinement=done)
    empty = CollectionSnapshot(at=NOW, regions=(), timeline=(), places=0, api=None, left=left)
    text = markdown(empty, picture=None)
    assert "`pip install 'mohe-assets[charts]'`" in text
    assert "![" not in text


def test_a_reason_cannot_break_out_of_its_cell() -> None:
    line = next(
        line
        for line in report(region(status="FAILED", reason="a|b\n# <b>c</b>")).splitlines()
        if "transient" in line
    )
    assert line.endswith(r"| `a`\|`b # <b>c</b>` |")


def test_many_failures_are_counted_and_not_all_listed() -> None:
    text = report(*(region(status="FAILED", reason="x" * 5_000) for _ in range(300)))
    assert "## Failed regions (300)" in text
    assert f"{300 - FAILED_SHOWN} more" in text
    assert len(text) < 20_000


def test_the_font_has_every_syllable_of_hangul() -> None:
    # A glyph that is missing would be a warning, which is an error here, but only for names that a
    # test draws.
    known = FT2Font(str(sans_path())).get_charmap()
    assert [chr(code) for code in range(0xAC00, 0xD7A4) if code not in known] == []


@pytest.mark.parametrize(
    "seconds", [0, 1, 20, 200, 9_000, 14_000, 90_000, 300_000, 900_000, 9_000_000, 80_000_000]
)
def test_a_picture_is_drawn_of_any_span_of_time_without_a_warning(seconds: int) -> None:
    rows = [
        TimelineRow(at=NOW + dt.timedelta(seconds=gone), calls=5, new_places=3)
        for gone in (0, seconds)
    ]
    regions = [
        region(),
        region("50110", "FAILED"),
        region("26110", "PENDING", 0),
        region("41111", "PROCESSING"),
    ]
    assert draw(regions, rows, at=NOW).startswith(b"\x89PNG")


def test_a_picture_is_drawn_of_nothing() -> None:
    assert draw([], [], at=NOW).startswith(b"\x89PNG")


def test_dongs_are_one_dot_per_sigungu_that_shows_the_worst_of_them() -> None:
    (dot,) = dots_of(
        [region("1168010100", places=3), region("1168010300", "FAILED", 4), region("9999900000")]
    )
    assert (dot.status, dot.places) == ("FAILED", 7)


def test_the_documented_columns_are_those_of_the_files() -> None:
    page = (Path(__file__).parents[2] / "docs" / "place_catalog.md").read_text("utf-8")
    table = page.partition("| column |")[2]
    documented = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    assert [(name.strip(" `"), kind.strip(), null.strip()) for name, kind, null in documented] == [
        (column.name, column.type, "yes" if column.nullable else "") for column in COLUMNS
    ]
