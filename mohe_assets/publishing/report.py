"""The collection report: progress of the collection as Markdown with a picture."""

import base64
import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mohe_assets.app import App
from mohe_assets.domain.forecast import CollectionForecast, forecast_collection
from mohe_assets.domain.kst import to_minute
from mohe_assets.ops.status_text import the_apis_day, what_is_left
from mohe_assets.publishing.atomic_files import locked, replacing
from mohe_assets.publishing.report_chart import STATUSES, can_draw, draw
from mohe_assets.store.api_state import ApiState
from mohe_assets.store.checkpoints import Status
from mohe_assets.store.reads.report import RegionRow, TimelineRow, read_regions, read_timeline
from mohe_assets.text.cleaning import markdown as markdown_text
from mohe_assets.text.cleaning import one_line

REPORT = "report.md"
PICTURE = "report.png"
NO_PICTURE = (
    "There is no picture, because matplotlib or its font is not installed: "
    "`pip install 'mohe-assets[charts]'` brings both."
)
# Failed regions and characters per reason in the report. They bound its size, because it is a row
# of Dagster's event log and a response to the browser.
FAILED_SHOWN = 40
REASON_LENGTH = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionSnapshot:
    """The data of a report. `api` is None if no keys are set."""

    at: dt.datetime
    regions: Sequence[RegionRow]
    timeline: Sequence[TimelineRow]
    places: int
    api: ApiState | None
    left: CollectionForecast

    @property
    def failed(self) -> list[RegionRow]:
        return [region for region in self.regions if region.status == Status.FAILED]

    @property
    def calls(self) -> int:
        return sum(row.calls for row in self.timeline)

    def count(self, status: str) -> int:
        return sum(region.status == status for region in self.regions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The written report; `markdown` embeds the picture, the file links to it.

    `picture` is None without the extra `charts`.
    """

    folder: Path
    snapshot: CollectionSnapshot
    markdown: str
    picture: bytes | None


def build_report(app: App, *, now: dt.datetime) -> Report:
    """Write report.md and report.png into the catalog's folder. `now` is aware.

    Without the extra `charts` there is no report.png.
    """
    snapshot = read_snapshot(app, now=now)
    folder = app.settings.catalog_folder
    picture, inline = None, None
    if can_draw():
        picture = draw(snapshot.regions, snapshot.timeline, at=now)
        inline = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    names = (REPORT,) if picture is None else (PICTURE, REPORT)
    with locked(folder), replacing(folder, names) as files:
        if picture is None:
            (folder / PICTURE).unlink(missing_ok=True)  # of an earlier state
        else:
            files[PICTURE].write(picture)
        files[REPORT].write(markdown(snapshot, picture=PICTURE if picture else None).encode())
    return Report(
        folder=folder,
        snapshot=snapshot,
        markdown=markdown(snapshot, picture=inline),
        picture=picture,
    )


def read_snapshot(app: App, *, now: dt.datetime) -> CollectionSnapshot:
    """Read the data of the report from the database."""
    regions = read_regions(app.database, app.scope)
    left, state = app.remaining_work(), app.api_state()
    return CollectionSnapshot(
        at=now,
        regions=regions,
        timeline=read_timeline(app.database, app.scope),
        places=sum(region.places for region in regions),
        api=state,
        left=forecast_collection(left.base, left.refinement, app.quota_state(state), now=now),
    )


def markdown(snapshot: CollectionSnapshot, *, picture: str | None) -> str:
    """Return the report as Markdown; `picture` is the URL of the image, None without one."""
    image = f"![Regions by status and places; places and calls over time]({picture})"
    counts = ", ".join(f"{snapshot.count(status):,} {status}" for status in STATUSES)
    summary = [
        f"- **Regions**: {len(snapshot.regions):,}, of them {counts}",
        f"- **Places**: {snapshot.places:,} in these regions, for {snapshot.calls:,} calls",
        f"- **API**: {the_apis_day(snapshot.api, quote=_quoted)}",
        f"- **Base plan of every region**: {what_is_left(snapshot.left.base_plan)}",
        f"- **And refinement, at most**: {what_is_left(snapshot.left.with_refinement)}",
    ]
    parts = [
        f"# Collection report\n\n{to_minute(snapshot.at)}",
        "\n".join(summary),
        image if picture else NO_PICTURE,
        _failures(snapshot.failed),
        f"## Provinces\n\n{_provinces(snapshot.regions)}",
    ]
    return "\n\n".join(parts) + "\n"


def _failures(failed: Sequence[RegionRow]) -> str:
    if not failed:
        return "## Failed regions\n\nNone."
    lines = [
        (
            markdown_text(region.region_name),
            markdown_text(region.failure_kind),
            str(region.failures),
            to_minute(region.retry_at) if region.retry_at else "only by: `mohe retry`",
            _quoted(region.error_message),
        )
        for region in failed[:FAILED_SHOWN]
    ]
    table = _table(("region", "kind", "failures", "next try", "reason"), lines)
    rest = len(failed) - FAILED_SHOWN
    more = (
        f"\n\n… and {rest:,} more: `mohe status`, or `batch_checkpoint` where status is FAILED."
        if rest > 0
        else ""
    )
    return f"## Failed regions ({len(failed):,})\n\n{table}{more}"


def _provinces(regions: Sequence[RegionRow]) -> str:
    names = {region.sido_name for region in regions}
    grouped = {name: [region for region in regions if region.sido_name == name] for name in names}
    ranked = sorted(grouped.items(), key=lambda item: (-_places(item[1]), item[0]))
    lines = [
        (
            markdown_text(name),
            *(str(sum(region.status == status for region in group)) for status in STATUSES),
            f"{_places(group):,}",
        )
        for name, group in ranked
    ]
    totals = (str(sum(region.status == status for region in regions)) for status in STATUSES)
    return _table(
        ("sido", *STATUSES, "places"), [*lines, ("**all**", *totals, f"{_places(regions):,}")]
    )


def _places(regions: Iterable[RegionRow]) -> int:
    return sum(region.places for region in regions)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def _quoted(text: str) -> str:
    """Return a reason as Markdown, short enough for a table."""
    line = one_line(text)
    return markdown_text(line if len(line) <= REASON_LENGTH else f"{line[:REASON_LENGTH]}…")
