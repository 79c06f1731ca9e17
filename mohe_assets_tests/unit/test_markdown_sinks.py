"""Names and reasons of any content are literal text on Dagster's pages and in the report."""

import ast
import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import dagster as dg
import pytest

import mohe_assets
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime import collection as collecting
from mohe_assets.defs.runtime import region_refresh as refreshing
from mohe_assets.defs.runtime.events import (
    failure_observation,
    materialization,
    region_sync_metadata,
    succession_table,
)
from mohe_assets.domain.forecast import CollectionForecast, Forecast
from mohe_assets.domain.succession import Succession
from mohe_assets.errors import ApiBlocked, RegionListRefused, TransientApiError
from mohe_assets.publishing.report import CollectionSnapshot, markdown
from mohe_assets.store.api_state import ApiState
from mohe_assets.store.checkpoints import Completion
from mohe_assets.store.reads.report import RegionRow
from mohe_assets_tests.support.markdown_page import HOSTILE, Page

NOW = dt.datetime(2026, 11, 25, 6, 0, tzinfo=dt.UTC)
OWN_BOLD = re.compile(
    r"\*\*(Regions|Places|API|Base plan of every region|And refinement, at most|all)\*\*"
)
SOURCES = Path(mohe_assets.__file__).parent

# Each place where Markdown is made of more than our own words, as module and function. A new one
# needs a test here.
KNOWN_SINKS = {
    ("defs/assets/catalog.py", "_report_metadata"),
    ("defs/runtime/collection.py", "_end"),
    ("defs/runtime/events.py", "failure_observation"),
    ("defs/runtime/events.py", "materialization"),
    ("defs/runtime/events.py", "region_sync_metadata"),
    ("defs/runtime/region_refresh.py", "refresh"),
    ("defs/resources.py", "_failure"),
}
# Numbers and our own constants.
NOTHING_FOREIGN = {
    ("defs/jobs.py", "build_asset_jobs"),
    ("defs/jobs.py", "job"),
    ("defs/checks.py", "checkpoints_match_partitions"),
    ("defs/checks.py", "_check"),
    ("defs/checks.py", "result"),
    ("defs/runtime/column_schemas.py", "_shown"),
}


def shown(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
class TestPagesOfDagster:
    def test_a_completed_region(self, text: str) -> None:
        values = dict.fromkeys(Completion.__dataclass_fields__, 1) | {
            "region_name": text,
            "partition_key": "k",
            "run_id": "",
        }
        event = materialization(Completion(**values))  # type: ignore[arg-type]
        page = Page.of(event.description or "")
        page.has_nothing_active()
        assert page.text == f"{shown(text)}: 1 places"

    def test_a_failed_region(self, text: str) -> None:
        region: Any = SimpleNamespace(region_name=text, partition_key="k", round=1, attempt=1)
        page = Page.of(failure_observation(region, text, "").description or "")
        page.has_nothing_active()
        assert page.text == f"{shown(text)}: {shown(text)}"

    def test_what_became_of_abolished_regions(self, text: str) -> None:
        one = Succession(
            old_code="1",
            old_name=text,
            new_code="2",
            new_name=text,
            shared_dongs=3,
            share_of_old=0.5,
            share_of_new=1.0,
        )
        page = Page.of(succession_table([one, one]))
        page.has_nothing_active()
        row = [f"1 {shown(text)}", f"2 {shown(text)}", "3", "50%", "100%"]
        assert page.rows[1:] == [row, row]

    def test_a_refresh_shows_that_table(self, text: str) -> None:
        one = Succession(
            old_code="1",
            old_name=text,
            new_code="2",
            new_name=text,
            shared_dongs=3,
            share_of_old=0.5,
            share_of_new=1.0,
        )
        sync = Mock(successions=[one], warning=text, calls=1, seeded=1, revoked=1)
        sync.listed.configure_mock(
            regions=[], leaves=[], dongs=[], rows=1, source="api", as_of=NOW.date()
        )
        sync.changes.configure_mock(added=(), abolished=(), renamed=())
        sync.reassigned.configure_mock(moved=0, unassigned=0)
        for value in region_sync_metadata(sync).values():
            if isinstance(value, dg.MarkdownMetadataValue):
                Page.of(value.value or "").has_nothing_active()

    def test_a_run_that_failed(self, text: str) -> None:
        failed = Mock(lease=Mock(region_name=text, partition_key="k"), reason=text)
        for run in (
            Mock(session=Mock(declared_dead=False), halted=None, failed=[failed, failed]),
            Mock(
                session=Mock(declared_dead=False),
                halted=ApiBlocked(text, api="a", variables=()),
                failed=[],
            ),
        ):
            with pytest.raises(dg.Failure) as ended:
                collecting._end(Mock(), run)
            _is_harmless(ended.value)

    def test_a_refresh_that_failed(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        app = Mock()
        app.refresh_regions.side_effect = TransientApiError(text, api="a")
        with pytest.raises(dg.Failure) as ended:
            refreshing.refresh(Mock(), app)
        _is_harmless(ended.value)
        monkeypatch.setattr(
            "mohe_assets.defs.resources.settings_module.load",
            Mock(side_effect=RegionListRefused(text)),
        )
        with pytest.raises(dg.Failure) as ended, MoheResource().open():
            pass
        _is_harmless(ended.value)


def _is_harmless(failure: dg.Failure) -> None:
    assert failure.description
    Page.of(failure.description).has_nothing_active()


@pytest.mark.parametrize("text", HOSTILE)
def test_the_report_has_its_tables_cells_and_one_picture_of_its_own(text: str) -> None:
    region = RegionRow(
        region_code="11680", region_name=text, sido_name=text, status="FAILED", places=1,
        failure_kind=text, failures=1, retry_at=None, error_message=text,
    )  # fmt: skip
    done = Forecast(calls=0, days=0, done_at=NOW)
    for reasons in (
        {"blocked_why": text, "closed_why": None},
        {"blocked_why": None, "closed_why": text},
    ):
        api = ApiState(
            used_today=0,
            daily_quota=1,
            used_this_month=0,
            monthly_quota=None,
            refused_rate=0,
            refused_quota=0,
            resets_at=NOW,
            closed_until=NOW,
            **reasons,  # type: ignore[arg-type]
        )
        standing = CollectionSnapshot(
            at=NOW,
            regions=[region],
            timeline=(),
            places=0,
            api=api,
            left=CollectionForecast(base_plan=done, with_refinement=done),
        )
        page = Page.of(OWN_BOLD.sub(r"\1", markdown(standing, picture="report.png")))
        page.has_nothing_active(images=1)
        cell = shown(text)
        assert page.rows == [
            ["region", "kind", "failures", "next try", "reason"],
            [cell, cell, "1", "only by: mohe retry", cell],
            ["sido", "COMPLETED", "PROCESSING", "PENDING", "FAILED", "places"],
            [cell, "0", "0", "0", "1", "1"],
            ["all", "0", "0", "0", "1", "1"],
        ]
        assert [one.tag for one in page.tokens if one.type == "heading_open"] == ["h1", "h2", "h2"]


def test_every_sink_is_tested() -> None:
    assert set(_sinks()) == KNOWN_SINKS | NOTHING_FOREIGN


def _sinks() -> Iterator[tuple[str, str]]:
    for path in sorted((SOURCES / "defs").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef) and any(map(_is_sink, ast.walk(function))):
                yield str(path.relative_to(SOURCES)), function.name


def _is_sink(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute) and node.attr == "md":
        return True
    return (
        isinstance(node, ast.keyword)
        and node.arg == "description"
        and not isinstance(node.value, ast.Constant)
    )
