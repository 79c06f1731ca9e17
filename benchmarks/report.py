"""The table and the picture of a comparison, from what `peers.json` holds."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.competitors import (
    BATCH,
    CEILING,
    DLT,
    DLT_PIECES,
    DLT_TUNED,
    PLAIN_DAGSTER,
    SCRAPY,
    SENSOR,
    SEQUENTIAL,
)
from benchmarks.figures import MISSING, Spread, cell, number, percent, table

ORDER = (BATCH, SENSOR, DLT_TUNED, DLT_PIECES, DLT, SCRAPY, PLAIN_DAGSTER, SEQUENTIAL, CEILING)
NAMES = [one.name for one in ORDER]
Found = Mapping[str, Any]


def write_report(result: Found, folder: Path) -> str:
    """Writes README.md and peers.png into the folder; returns the text."""
    text = markdown(result)
    (folder / "README.md").write_text(text, encoding="utf-8")
    draw(result, folder / "peers.png")
    return text


def markdown(result: Found) -> str:
    machine, versions = result["machine"], result["versions"]
    load = " ".join(map(str, machine["load_average_before"]))
    where = (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, load average "
        f"before {load}"
    )
    parts = [
        "# The same job side by side",
        f"Measured {result['measured']} in {result['seconds']} s on {where}.",
        (
            "Written by `make bench`; what is measured, and how to read it: "
            "[docs/benchmarks.md](../../docs/benchmarks.md)."
        ),
        "Each figure is the median (least–most) of the runs, three unless a row says otherwise.",
        ", ".join(f"{name} {one}" for name, one in versions.items()) + ".",
        "![Calls per second](peers.png)",
        *[part for name, found in result["scenarios"].items() for part in _scenario(name, found)],
        *_killed(result["killed"]),
        *_database(result["database"]),
        *_notes(result),
    ]
    return "\n\n".join(parts) + "\n"


def _scenario(name: str, found: Found) -> list[str]:
    limited = any("share_of_limit" in one for one in found.values())
    head = [
        "",
        "searches",
        "calls/s",
        "seconds in all",
        "CPU s per 1,000",
        "of the server",
        "worker MiB",
        "all processes MiB",
        "runs",
    ]
    columns = ["seconds", "cpu_per_1000", "server_cpu_per_1000", "worker_mib", "total_mib"]
    if limited:
        head[2:3] = ["of the limit used", "calls refused"]
    lines = []
    for who in _present(found):
        one = found[who]
        rates = (
            [percent(_spread(one, "share_of_limit")), percent(_spread(one, "refused_share"))]
            if limited
            else [cell(_spread(one, "calls_per_second"))]
        )
        cells = [cell(_spread(one, column)) for column in columns]
        lines.append([who, f"{one['searches']:,}", *rates, *cells, _runs(one)])
    ratios = _ratios(found) if not limited else ""
    return [f"## {name}", table(head, lines), *([ratios] if ratios else [])]


def _ratios(found: Found) -> str:
    """Return the ratios of the batch job's rate to the others'."""
    rates = {
        who: spread.median for who in found if (spread := _spread(found[who], "calls_per_second"))
    }
    ours = BATCH.name
    if ours not in rates or len(rates) == 1:
        return ""
    others = ", ".join(
        f"{number(rates[ours] / rates[who])} of {who}" for who in _present(rates) if who != ours
    )
    return f"Calls per second of {ours}: {others} (1 is as many)."


def _killed(found: Found) -> list[str]:
    if not found:
        return []
    head = [
        "",
        "searches",
        "repeated",
        "lost for good",
        "s to the next call",
        "s to the next new one",
        "runs",
        "what it promises",
    ]
    promises = {one.name: one.guarantee for one in ORDER}
    columns = ["repeated", "lost", "seconds_to_next_call", "seconds_to_next_new_call"]
    lines = []
    for who in _present(found):
        one = found[who]
        cells = [cell(_spread(one, column)) for column in columns]
        lines.append([who, f"{one['searches']:,}", *cells, _runs(one), promises[who]])
    return ["## kill -9 at half of the searches, then the same command again", table(head, lines)]


def _database(found: Found) -> list[str]:
    parts = []
    if counts := found["counts"]:
        lines = [
            [
                who,
                *(
                    number(counts[who].get(column))
                    for column in ("statements_per_search", "commits_per_search")
                ),
            ]
            for who in _present(counts)
        ]
        parts += [
            "## Statements and commits per search",
            table(["", "statements", "commits"], lines),
        ]
    if sizes := found["sizes"]:
        head = ["the batch job in a database of", "ms per search", "calls/s", "worker MiB", "runs"]
        lines = []
        for size, one in sizes.items():
            cells = [cell(_spread(one, column)) for column in ("calls_per_second", "worker_mib")]
            lines.append([size, number(one.get("milliseconds_per_search")), *cells, _runs(one)])
        parts += ["## With many places stored", table(head, lines)]
    return parts


def _notes(result: Found) -> list[str]:
    """List the failures and omitted turns."""
    groups = [
        *result["scenarios"].items(),
        ("killed at half", result["killed"]),
        ("with many places", result["database"]["sizes"]),
    ]
    notes = []
    for name, found in groups:
        for who, one in found.items():
            notes += [
                f"- {name}: {who} failed: {_last_line(failure)}" for failure in one["failures"]
            ]
            if one.get("missing"):
                notes.append(
                    f"- {name}: {who} ended without {one['missing']} of {one['searches']} searches."
                )
            if one.get("repeated") and isinstance(one["repeated"], int):
                notes.append(
                    f"- {name}: {who} repeated {one['repeated']} answers without being interrupted."
                )
    notes += [
        f"- statements: {who} failed: {_last_line(one['failure'])}"
        for who, one in result["database"]["counts"].items()
        if "failure" in one
    ]
    notes += [
        f"- left out {times} times for want of time: {name}"
        for name, times in result["left_out"].items()
    ]
    return ["## What failed or was left out", "\n".join(notes)] if notes else []


def draw(result: Found, path: Path) -> None:
    """Calls per second by scenario without a limit; bars from the median, lines from the least to
    the most.
    """
    scenarios = {
        name: found
        for name, found in result["scenarios"].items()
        if not any("share_of_limit" in one for one in found.values())
    }
    figure = Figure(figsize=(5.5 * max(1, len(scenarios)), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for at, (name, found) in enumerate(scenarios.items(), start=1):
        axes = figure.add_subplot(1, len(scenarios), at)
        rates = [
            (who, spread)
            for who in _present(found)[::-1]
            if (spread := _spread(found[who], "calls_per_second"))
        ]
        medians = [spread.median for _, spread in rates]
        errors = [[s.median - s.least for _, s in rates], [s.most - s.median for _, s in rates]]
        colours = ["#2b6cb0" if who.startswith("mohe") else "#a0aec0" for who, _ in rates]
        axes.barh([who for who, _ in rates], medians, xerr=errors, color=colours, ecolor="#4a5568")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("calls per second")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _present(found: Mapping[str, object]) -> Sequence[str]:
    return [name for name in NAMES if name in found]


def _spread(found: Found, column: str) -> Spread | None:
    one = found.get(column)
    if not isinstance(one, Mapping):
        return None
    return Spread(median=one["median"], least=one["min"], most=one["max"], runs=one["runs"])


def _runs(found: Found) -> str:
    """Of all that were begun, those that ended."""
    begun, failed = len(found["runs"]), len(found["failures"])
    return f"{begun - failed} of {begun}" if failed else str(begun)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else MISSING


def main() -> None:
    """Writes table and picture again from the figures as they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "results")
    folder = parser.parse_args().folder
    print(write_report(json.loads((folder / "peers.json").read_text(encoding="utf-8")), folder))


if __name__ == "__main__":
    main()
