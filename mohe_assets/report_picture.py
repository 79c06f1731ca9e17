"""The picture of the collection report: a map of Korea by region, and the curves of places and calls. Pure: rows in, PNG out."""

import csv
import datetime as dt
import functools
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import accumulate
from typing import TYPE_CHECKING

from pylopdf_fonts_ko import sans_path

from mohe_assets.forecast import KST
from mohe_assets.store.report import RegionRow, TimelineRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.font_manager import FontProperties

STATUSES = ("COMPLETED", "PROCESSING", "PENDING", "FAILED")
# Told apart by people who do not see red and green, too: dark, middle, pale, and a shape of its own for what failed.
COLOURS = {"COMPLETED": "#0f766e", "PROCESSING": "#f59e0b", "PENDING": "#cbd5e1", "FAILED": "#dc2626"}
LABELS = {"COMPLETED": "완료", "PROCESSING": "진행 중", "PENDING": "대기", "FAILED": "실패"}
MARKERS = {"COMPLETED": "o", "PROCESSING": "o", "PENDING": "o", "FAILED": "X"}
# What is the matter with one part is the matter with the whole: in a map of sigungu this stands for all their dongs.
WORST_FIRST = ("FAILED", "PROCESSING", "PENDING", "COMPLETED")
INK, FAINT = "#0f172a", "#64748b"
INCHES, DOTS = (11.0, 7.2), 100
SMALLEST, LARGEST = 14.0, 260.0  # square points
SHORTEST = dt.timedelta(minutes=1)  # of the time axis
SIGUNGU_DIGITS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A sigungu on the map."""

    latitude: float
    longitude: float
    sido_name: str
    status: str
    places: int


@functools.cache
def _points() -> dict[str, tuple[float, float]]:
    text = resources.files("mohe_assets.data").joinpath("sigungu_centroids.csv").read_text(encoding="utf-8-sig")
    found = csv.DictReader(text.splitlines())
    return {row["region_cd"][:SIGUNGU_DIGITS]: (float(row["lat"]), float(row["lng"])) for row in found}


def dots_of(regions: Sequence[RegionRow]) -> list[Dot]:
    """The regions by sigungu, as far as their points are known: codes newer than the bundled list have none."""
    points = _points()
    grouped: dict[str, list[RegionRow]] = {}
    for region in regions:
        grouped.setdefault(region.region_code[:SIGUNGU_DIGITS], []).append(region)
    return [
        Dot(
            latitude=points[code][0],
            longitude=points[code][1],
            sido_name=group[0].sido_name,
            status=min((one.status for one in group), key=WORST_FIRST.index),
            places=sum(one.places for one in group),
        )
        for code, group in grouped.items()
        if code in points
    ]


def draw(regions: Sequence[RegionRow], timeline: Sequence[TimelineRow], *, at: dt.datetime) -> bytes:
    """The picture as PNG. Needs no font and no screen of the machine."""
    # Not at the top: it costs a second, and every run and code server imports the definitions. No pyplot: it is global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - see above
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    figure = Figure(figsize=INCHES, dpi=DOTS, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 2, width_ratios=(1.05, 1), left=0.02, right=0.97, top=0.88, bottom=0.08, wspace=0.1, hspace=0.42
    )
    title = f"장소 수집 현황 · {at.astimezone(KST):%Y-%m-%d %H:%M} KST"
    figure.text(0.03, 0.94, title, fontproperties=_font(17), color=INK)
    _draw_map(figure.add_subplot(grid[:, 0]), dots_of(regions), regions)
    times = [row.at for row in timeline]
    places, calls = (list(accumulate(getattr(row, name) for row in timeline)) for name in ("new_places", "calls"))
    _draw_curve(figure.add_subplot(grid[0, 1]), times, places, name="찾은 장소 (누적)", colour=COLOURS["COMPLETED"])
    _draw_curve(figure.add_subplot(grid[1, 1]), times, calls, name="API 호출 (누적)", colour="#1d4ed8")
    png = io.BytesIO()
    canvas.print_png(png)  # type: ignore[no-untyped-call]
    return png.getvalue()


def _font(size: float) -> "FontProperties":
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415 - see draw()

    return FontProperties(fname=str(sans_path()), size=size)


def _draw_map(axes: "Axes", dots: Sequence[Dot], regions: Sequence[RegionRow]) -> None:
    largest = max((dot.places for dot in dots), default=0) or 1
    for status in reversed(WORST_FIRST):
        shown = [dot for dot in dots if dot.status == status]
        count = sum(region.status == status for region in regions)
        axes.scatter(
            [dot.longitude for dot in shown],
            [dot.latitude for dot in shown],
            # By area, so that twice the places look like twice the places.
            s=[SMALLEST + (LARGEST - SMALLEST) * dot.places / largest for dot in shown],
            c=COLOURS[status], marker=MARKERS[status], edgecolors="white", linewidths=0.6, alpha=0.9,
            label=f"{LABELS[status]} {status} {count:,}",
        )  # fmt: skip
    _name_provinces(axes, dots)
    axes.set_aspect(1 / math.cos(math.radians(36)))
    axes.set_xlim(125.6, 131.2)
    axes.set_ylim(33.0, 38.7)
    axes.set_axis_off()
    legend = axes.legend(
        loc="lower right", prop=_font(10), frameon=False, labelcolor=INK, title=f"점의 넓이: 장소 수 (최대 {largest:,})"
    )
    legend.get_title().set_fontproperties(_font(9))
    legend.get_title().set_color(FAINT)
    for handle in legend.legend_handles:
        if handle is not None and hasattr(handle, "set_sizes"):
            handle.set_sizes([60])


def _name_provinces(axes: "Axes", dots: Sequence[Dot]) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415 - see draw()

    for name in {dot.sido_name for dot in dots}:
        inside = [dot for dot in dots if dot.sido_name == name]
        longitude = sum(dot.longitude for dot in inside) / len(inside)
        latitude = sum(dot.latitude for dot in inside) / len(inside)
        axes.text(
            longitude, latitude, name, fontproperties=_font(9), color=INK, ha="center", va="center",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _draw_curve(axes: "Axes", times: Sequence[dt.datetime], totals: Sequence[int], *, name: str, colour: str) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - see draw()
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter  # noqa: PLC0415 - see draw()

    last = f"{totals[-1]:,}" if totals else "0"
    axes.set_title(f"{name}  {last}", fontproperties=_font(12), color=INK, loc="left")
    if not times:
        axes.set_axis_off()
        axes.text(0, 0.9, "아직 호출이 없습니다", fontproperties=_font(11), color=FAINT, transform=axes.transAxes)
        return
    axes.plot(times, totals, color=colour, linewidth=1.8)  # type: ignore[arg-type]
    axes.fill_between(times, totals, color=colour, alpha=0.12, linewidth=0)  # type: ignore[arg-type]
    axes.set_xlim(times[0], max(times[-1], times[0] + SHORTEST))  # type: ignore[arg-type]
    # Three and eight: with less between them there are spans that no interval fits, and a warning.
    locator = AutoDateLocator(tz=KST, minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=KST))  # type: ignore[no-untyped-call]
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#94a3b8")
    axes.tick_params(length=0, colors=FAINT)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.get_offset_text()):
        label.set_fontproperties(_font(9))
