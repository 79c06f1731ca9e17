"""Picture of the collection report: a map of the regions, and curves of places and calls.

Pure: rows in, PNG out.
"""

import datetime as dt
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING

from mohe_assets.domain.kst import KST, to_minute
from mohe_assets.domain.regions import region_points, sido_spellings
from mohe_assets.store.checkpoints import Status
from mohe_assets.store.reads.report import RegionRow, TimelineRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.font_manager import FontProperties

STATUSES = (Status.COMPLETED, Status.PROCESSING, Status.PENDING, Status.FAILED)
# Distinguishable with a red-green deficiency: dark, medium, pale, and a separate shape for FAILED.
COLOURS: dict[str, str] = {
    Status.COMPLETED: "#0f766e",
    Status.PROCESSING: "#f59e0b",
    Status.PENDING: "#94a3b8",
    Status.FAILED: "#dc2626",
}
LABELS: dict[str, str] = {
    Status.COMPLETED: "완료",
    Status.PROCESSING: "진행 중",
    Status.PENDING: "대기",
    Status.FAILED: "실패",
}
MARKERS: dict[str, str] = {
    Status.COMPLETED: "o",
    Status.PROCESSING: "o",
    Status.PENDING: "o",
    Status.FAILED: "X",
}
# The status of a sigungu is the worst status of its dongs.
WORST_FIRST = (Status.FAILED, Status.PROCESSING, Status.PENDING, Status.COMPLETED)
INK, FAINT = "#0f172a", "#64748b"
INCHES, DOTS = (11.0, 7.2), 100
# Area of a region without places, in square points; large for FAILED, so that it is always visible.
SMALLEST: dict[str, float] = {
    Status.COMPLETED: 10.0,
    Status.PROCESSING: 30.0,
    Status.PENDING: 10.0,
    Status.FAILED: 80.0,
}
LARGEST = 110.0  # additional square points of the region with the most places
SHORTEST = dt.timedelta(seconds=15)  # length of the time axis
SIGUNGU_DIGITS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A part of the country, in degrees."""

    west: float
    east: float
    south: float
    north: float

    def holds(self, latitude: float, longitude: float) -> bool:
        return self.south < latitude < self.north and self.west < longitude < self.east


COUNTRY = Frame(west=125.7, east=131.3, south=32.75, north=38.6)
CAPITAL = Frame(west=126.55, east=127.35, south=37.2, north=37.78)
INSET = (128.75, 32.75, 2.45, 1.8)  # west, south, width, height: in the sea south of Busan


@dataclass(frozen=True, kw_only=True, slots=True)
class Dot:
    """A sigungu on the map."""

    latitude: float
    longitude: float
    sido_name: str
    status: str
    places: int


def dots_of(regions: Sequence[RegionRow]) -> list[Dot]:
    """Return the sigungu with known points; codes newer than the bundled list have none."""
    points = region_points()
    grouped: dict[str, list[RegionRow]] = {}
    for region in regions:
        grouped.setdefault(region.region_code[:SIGUNGU_DIGITS], []).append(region)
    return [
        Dot(
            latitude=points[code][0],
            longitude=points[code][1],
            sido_name=group[0].sido_name,
            status=min((region.status for region in group), key=WORST_FIRST.index),
            places=sum(region.places for region in group),
        )
        for code, group in grouped.items()
        if code in points
    ]


def can_draw() -> bool:
    """Whether the extra `charts` is installed."""
    return all(find_spec(name) for name in ("matplotlib", "pylopdf_fonts_ko"))


def draw(
    regions: Sequence[RegionRow], timeline: Sequence[TimelineRow], *, at: dt.datetime
) -> bytes:
    """Return the picture as PNG. Needs neither fonts nor a display of the host."""
    # Imported here: it takes 1 s, and every run and code server imports the definitions. Without
    # pyplot, which has global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - see above
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    dots = dots_of(regions)
    figure = Figure(figsize=INCHES, dpi=DOTS, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2,
        2,
        width_ratios=(1.05, 1),
        left=0.02,
        right=0.97,
        top=0.83,
        bottom=0.08,
        wspace=0.1,
        hspace=0.42,
    )
    title = f"장소 수집 현황 · {to_minute(at)}"
    figure.text(0.03, 0.94, title, fontproperties=_font(17), color=INK)
    figure.text(
        0.03,
        0.03,
        f"점의 넓이: 장소 수 (최대 {_largest(dots):,})",
        fontproperties=_font(9),
        color=FAINT,
    )
    _draw_map(figure.add_subplot(grid[:, 0]), dots, regions)
    times = [row.at for row in timeline]
    places, calls = (
        list(accumulate(getattr(row, name) for row in timeline)) for name in ("new_places", "calls")
    )
    _draw_curve(
        figure.add_subplot(grid[0, 1]),
        times,
        places,
        name="찾은 장소 (누적)",
        colour=COLOURS[Status.COMPLETED],
    )
    _draw_curve(
        figure.add_subplot(grid[1, 1]), times, calls, name="API 호출 (누적)", colour="#1d4ed8"
    )
    png = io.BytesIO()
    canvas.print_png(png)  # type: ignore[no-untyped-call]
    return png.getvalue()


def _font(size: float) -> "FontProperties":
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415 - see draw()
    from pylopdf_fonts_ko import sans_path  # noqa: PLC0415 - in the extra `charts`

    return FontProperties(fname=str(sans_path()), size=size)


def _draw_map(axes: "Axes", dots: Sequence[Dot], regions: Sequence[RegionRow]) -> None:
    _draw_dots(axes, dots, COUNTRY)
    _name_provinces(axes, dots, COUNTRY)
    # An inset, because a quarter of all regions is in a hundredth of the area.
    capital = axes.inset_axes(INSET, transform=axes.transData)
    _draw_dots(capital, dots, CAPITAL)
    _name_provinces(capital, dots, CAPITAL)
    capital.set_title("수도권", fontproperties=_font(9), color=FAINT, loc="left", pad=3)
    outline = axes.indicate_inset_zoom(capital, edgecolor=FAINT, linewidth=0.8)
    for line in outline.connectors or ():
        line.set_visible(False)  # they would cross half of the country
    axes.set_axis_off()
    capital.set_xticks([])
    capital.set_yticks([])
    capital.spines[:].set_color("#94a3b8")
    _draw_legend(axes, regions)


def _draw_dots(axes: "Axes", dots: Sequence[Dot], frame: Frame) -> None:
    largest = _largest(dots)
    for status in reversed(WORST_FIRST):
        shown = [
            dot for dot in dots if dot.status == status and frame.holds(dot.latitude, dot.longitude)
        ]
        axes.scatter(
            [dot.longitude for dot in shown],
            [dot.latitude for dot in shown],
            # The area is proportional to the places.
            s=[SMALLEST[status] + LARGEST * dot.places / largest for dot in shown],
            c=COLOURS[status],
            marker=MARKERS[status],
            edgecolors="white",
            linewidths=0.6,
            alpha=0.9,
            zorder=4 if status == Status.FAILED else 2,  # names are drawn at 3
        )
    axes.set_aspect(1 / math.cos(math.radians(36)))
    axes.set_xlim(frame.west, frame.east)
    axes.set_ylim(frame.south, frame.north)


def _largest(dots: Sequence[Dot]) -> int:
    return max((dot.places for dot in dots), default=0) or 1


def _draw_legend(axes: "Axes", regions: Sequence[RegionRow]) -> None:
    for status in STATUSES:
        count = sum(region.status == status for region in regions)
        axes.scatter(
            [],
            [],
            s=60,
            c=COLOURS[status],
            marker=MARKERS[status],
            edgecolors="white",
            label=f"{LABELS[status]} {status} {count:,}",
        )
    # Above the map, which has no room for a legend.
    axes.figure.legend(
        loc="upper left",
        bbox_to_anchor=(0.02, 0.925),
        ncols=4,
        prop=_font(10),
        frameon=False,
        labelcolor=INK,
        handletextpad=0.1,
        columnspacing=1.2,
    )


def _name_provinces(axes: "Axes", dots: Sequence[Dot], frame: Frame) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415 - see draw()

    grouped: dict[str, list[Dot]] = {}
    for dot in dots:
        if frame.holds(dot.latitude, dot.longitude):
            grouped.setdefault((*sido_spellings(dot.sido_name), dot.sido_name)[0], []).append(dot)
    height, width = (frame.north - frame.south) / 22, (frame.east - frame.west) / 10
    placed: list[tuple[float, float]] = []
    # Large provinces first; a name that would overlap another is omitted.
    for name, inside in sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0])):
        latitude = sum(dot.latitude for dot in inside) / len(inside)
        longitude = sum(dot.longitude for dot in inside) / len(inside)
        if any(abs(latitude - y) <= height and abs(longitude - x) <= width for y, x in placed):
            continue
        placed.append((latitude, longitude))
        axes.text(
            longitude,
            latitude,
            name,
            fontproperties=_font(10),
            color=INK,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )


def _draw_curve(
    axes: "Axes", times: Sequence[dt.datetime], totals: Sequence[int], *, name: str, colour: str
) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - see draw()
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter  # noqa: PLC0415 - see draw()

    last = f"{totals[-1]:,}" if totals else "0"
    axes.set_title(f"{name}  {last}", fontproperties=_font(12), color=INK, loc="left")
    if not times:
        axes.set_axis_off()
        axes.text(
            0,
            0.9,
            "아직 호출이 없습니다",
            fontproperties=_font(11),
            color=FAINT,
            transform=axes.transAxes,
        )
        return
    axes.plot(times, totals, color=colour, linewidth=1.8)  # type: ignore[arg-type]
    axes.fill_between(times, totals, color=colour, alpha=0.12, linewidth=0)  # type: ignore[arg-type]
    axes.set_xlim(times[0], max(times[-1], times[0] + SHORTEST))  # type: ignore[arg-type]
    # 3 and 8 ticks: with a smaller difference some spans have no interval, which is a warning.
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
