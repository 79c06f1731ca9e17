"""Actions of a person with the mouse: finding a region by name, completing a province, repairing a
region.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.chromium import PATIENCE_MS
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.processes import statuses
from mohe_assets_tests.support.ui import Up

pytestmark = pytest.mark.browser

GANGNAM = "11680_서울특별시_강남구"
JUNGNANG = "11260_서울특별시_중랑구"


class PartitionsPage:
    """The partitions of `places`, by what is written on the page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = f"{url}/assets/places?view=partitions"

    def open(self, partition: str | None = None) -> None:
        self.page.goto(self.url if partition is None else f"{self.url}&partition={partition}")
        expect(self.page.get_by_text("Missing (")).to_be_visible(timeout=PATIENCE_MS)

    def search(self, name: str) -> None:
        self.page.get_by_placeholder("Filter by name").fill(name)

    def choose(self, key: str) -> None:
        self.page.get_by_text(key, exact=True).first.click()
        expect(self.page.get_by_text("Latest materialization")).to_be_visible(timeout=PATIENCE_MS)

    def shows(self, **counts: int) -> None:
        """Wait until the page counts that many partitions of each status."""
        for status, count in counts.items():
            expect(self.page.get_by_text(f"{status.capitalize()} ({count})")).to_be_visible(
                timeout=PATIENCE_MS
            )

    @contextmanager
    def materializing(self) -> Iterator[Locator]:
        """The dialog; launches when the block ends."""
        self.page.get_by_role("button", name="Materialize").first.click()
        dialog = self.page.get_by_role("dialog").filter(
            has_text="Launch runs to materialize places"
        )
        yield dialog
        dialog.get_by_role("button", name="Launch").click()
        expect(dialog).not_to_be_visible(timeout=PATIENCE_MS)

    def select_all_of(self, dialog: Locator, name: str, *, count: int) -> None:
        """In the dialog: exactly the partitions whose key has this name."""
        dialog.get_by_role("button", name="Custom").click()
        dialog.locator("[aria-haspopup]").first.click()
        self.page.get_by_text("Select all (256)").click()
        self.page.get_by_placeholder("Filter partitions").fill(name)
        self.page.get_by_text(f"Select all ({count})").click()
        self.page.keyboard.press("Escape")
        expect(dialog.get_by_text(f"{count} partitions", exact=True)).to_be_visible(
            timeout=PATIENCE_MS
        )


def test_a_person_collects_a_region_a_province_and_a_region_that_failed(
    up: Up, page: Page, simulator: Simulator, database: Database, pictures: Path
) -> None:
    partitions = PartitionsPage(page, up.ui.url)
    partitions.open()
    partitions.shows(failed=0, materialized=0, missing=256)

    # One region, found by its Korean name.
    partitions.search("강남구")
    partitions.choose(GANGNAM)
    with partitions.materializing() as dialog:
        expect(dialog.get_by_text("1 partition", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    partitions.shows(materialized=1, missing=255)
    partitions.open(GANGNAM)
    expect(page.get_by_text("서울특별시 강남구").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("collected_by_run")).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "region.png")

    # The missing regions of Seoul; one region fails at the API.
    simulator.add_faults(
        [{"api": "naver", "fault": "status", "status": 503, "query_contains": "서울특별시 중랑구"}]
    )
    simulator.configure(latency_ms=300)
    calls = simulator.stats(brief=True)["naver"]["received"]
    partitions.open()
    partitions.search("서울특별시")
    with partitions.materializing() as dialog:
        partitions.select_all_of(dialog, "서울특별시", count=25)
        dialog.get_by_text("Backfill only failed and missing partitions within selection").click()
        page.screenshot(path=pictures / "backfill.png")
    partitions.open()
    partitions.search("서울특별시")
    partitions.shows(failed=1, materialized=24, missing=231)
    partitions.choose(JUNGNANG)
    expect(page.get_by_text("failed, and did not materialize this asset")).to_be_visible(
        timeout=PATIENCE_MS
    )
    page.screenshot(path=pictures / "province.png")
    assert statuses(database) == {"COMPLETED": 24, "FAILED": 1, "PENDING": 231}
    assert read(database, "SELECT DISTINCT round FROM search_query") == [{"round": 1}], (
        "the region that was green is left alone"
    )
    spent = simulator.stats(brief=True)["naver"]["received"] - calls - 23 * 2
    assert 2 * 4 <= spent <= 2 * 4 + 3, (
        "four attempts for each search of the broken one, and a few that show that the API is well"
    )

    # Why it failed, from the page alone.
    (failed,) = up.ui.runs("FAILURE")
    page.goto(f"{up.ui.url}/runs/{failed['id']}")
    expect(page.get_by_text("서울특별시 중랑구").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("503").first).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "failed.png")

    # Repaired and requested again.
    simulator.clear_faults()
    partitions.open()
    partitions.search("중랑구")
    partitions.choose(JUNGNANG)
    with partitions.materializing() as dialog:
        expect(dialog.get_by_text("1 partition", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    partitions.shows(failed=0, materialized=25, missing=231)
    assert statuses(database) == {"COMPLETED": 25, "PENDING": 231}
    partitions.open(JUNGNANG)
    partitions.search("서울특별시")
    expect(page.get_by_text("collected_by_run")).to_be_visible(timeout=PATIENCE_MS)
    page.screenshot(path=pictures / "repaired.png")
