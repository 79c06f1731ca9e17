"""The figures of docs/benchmarks.md are those of benchmarks/results."""

import re
from typing import Any

from mohe_assets_tests.support.measurements import result
from mohe_assets_tests.support.pages import differences, numbers_in, section, table_rows

PAGE = section("docs/benchmarks.md", "Figures")
PEERS, SCALE, STARTUP = result("peers"), result("scale").raw, result("startup").raw
RECOVERY, DEPTH, SEARCHED = (
    result("recovery").raw,
    result("depth").raw,
    result("search_plan").raw,
)
# Names of competitors on the page and in peers.json.
BATCH, DLT, CEILING = "mohe-assets, batch job", "dlt, 48 workers", "ceiling: calls and COPY only"
NAMES = {
    BATCH: BATCH,
    "mohe-assets, sensor-driven, started again by itself": "mohe-assets, sensor-driven",
    "mohe-assets, sensor-driven, all starts included": "mohe-assets, sensor-driven",
    DLT: DLT,
    "dlt, defaults": "dlt, defaults",
    "Scrapy with JOBDIR": "Scrapy with JOBDIR",
    "Scrapy": "Scrapy with JOBDIR",
    "plain Dagster, a run per region": "Dagster, a run per region",
    "requests in a loop": "requests in a loop",
    "ceiling: only calls and copies": CEILING,
}
ZERO, DISTANT = "no latency, no limit", "60 ms, no limit"
SLOW, FAST = "60 ms, limit 10/s", "60 ms, limit 50/s"


def rows_below(header: str) -> dict[str, list[str]]:
    """Return the rows of the table that follows this text, by their first cell."""
    table = PAGE[PAGE.index(header) :].partition("\n\n")[0]
    found = {row[0]: row[1:] for row in table_rows(table)[1:]}
    assert found
    return found


def written(cells: list[str]) -> list[str]:
    return [number for cell in cells for number in numbers_in(cell)]


def sentence_numbers(pattern: str) -> list[str]:
    """Return the groups of the only place of the page that matches."""
    (found,) = re.finditer(pattern, " ".join(PAGE.split()))
    return list(found.groups())


def test_rates_and_kills_are_those_that_were_measured() -> None:
    rates = [PEERS.rates(scenario) for scenario in (ZERO, DISTANT)]
    killed = PEERS.raw["killed"]
    shown = rows_below("| 256 regions × 15 searches")
    for label, cells in shown.items():
        name = NAMES[label]
        values: list[float] = []
        if "sensor" not in label:
            values += [rate[name] for rate in rates if name in rate]
        if name in killed:
            one = killed[name]
            values.append(one["repeated"]["median"])
            values += [one["searches"]] if one["searches"] != 720 else []
            values.append(one["lost"]["median"])
            values.append(one["seconds_to_next_new_call"]["median"])
        assert differences(written(cells), values) == [], label
    assert {NAMES[label] for label in shown} >= {*rates[0], *rates[1]}


def test_the_use_of_the_limits_is_the_measured_one() -> None:
    slow, fast = PEERS.shares(SLOW), PEERS.shares(FAST)
    figures = PEERS.raw["scenarios"][FAST]
    for label, cells in rows_below("| | 10/s | 50/s |").items():
        name = NAMES[label]
        values = [share[name] for share in (slow, fast) if name in share]
        values.append(100 * figures[name]["refused_share"]["median"])
        values += [figures[name][one]["median"] for one in ("cpu_per_1000", "worker_mib")]
        assert differences(written(cells), values) == [], label


def test_the_sentences_have_the_measured_figures() -> None:
    zero, distant = PEERS.rates(ZERO), PEERS.rates(DISTANT)
    sizes = PEERS.raw["database"]["sizes"]
    counts = PEERS.raw["database"]["counts"][BATCH]
    cpu = PEERS.medians(ZERO, "cpu_per_1000")
    sentences: dict[str, list[float]] = {
        r"makes ([\d.]+) times as many calls a second as dlt and ([\d.]+) times as many as Scrapy, "
        r"and ([\d.]+) of the ceiling": [
            zero[BATCH] / zero[DLT],
            zero[BATCH] / zero["Scrapy with JOBDIR"],
            distant[BATCH] / distant[CEILING],
        ],
        r"it is ([\d.]+) s per 1,000 \(dlt ([\d.]+), Scrapy ([\d.]+)\) and ([\d.]+) s": [
            *(cpu[name] for name in (BATCH, DLT, "Scrapy with JOBDIR")),
            PEERS.medians(ZERO, "server_cpu_per_1000")[BATCH],
        ],
        r"a run of plain Dagster has (\d+) MiB": [
            PEERS.medians(DISTANT, "worker_mib")["Dagster, a run per region"]
        ],
        r"takes ([\d.]+) statements and ([\d.]+) commits": [
            counts["statements_per_search"],
            counts["commits_per_search"],
        ],
        r"([\d.]+) ms with 10,000 and ([\d.]+) ms with 1,000,000": [
            sizes[f"{size} places"]["milliseconds_per_search"] for size in ("10,000", "1,000,000")
        ],
        r"the worker has (\d+) and (\d+) MiB": [
            sizes[f"{size} places"]["worker_mib"]["median"] for size in ("10,000", "1,000,000")
        ],
        r"national collection of ([\d,]+) searches at (\d+) calls a second": [
            RECOVERY["searches"],
            RECOVERY["calls per second"],
        ],
        r"finds ([\d,]+) places with ([\d,]+) calls": [DEPTH["all: places"], DEPTH["all: calls"]],
    }
    for pattern, values in sentences.items():
        assert differences(sentence_numbers(pattern), values) == [], pattern
    assert DEPTH["searches answered more than once"] == 0, "it repeats nothing"
    assert RECOVERY["kills"] == 10, "ten random moments"
    machine = PEERS.raw["machine"]
    assert machine["cores"] == 2, "two cores"
    expected = [machine["memory_gib"]]
    assert differences(sentence_numbers(r"two cores \(Intel Xeon\), ([\d.]+) GiB"), expected) == []
    assert f"On {PEERS.raw['measured'][:10]}" in PAGE
    assert f"`make bench-long`, {RECOVERY['measured'][:10]}" in PAGE


def test_the_kills_of_a_national_collection_are_the_measured_ones() -> None:
    table = rows_below("| | |\n|---|---|\n| places identical")
    seconds = "seconds from kill -9 to the next call"
    expected: dict[str, list[float]] = {
        "searches never answered": [RECOVERY["searches never answered"]],
        "searches answered more than once": [
            RECOVERY["searches answered more than once"],
            RECOVERY["kills"] * RECOVERY["searches in flight"],
        ],
        "seconds from the kill to the next call, median and longest": [
            RECOVERY[f"{seconds}, median"],
            RECOVERY[f"{seconds}, longest"],
        ],
        "rows PROCESSING or RUNNING one lease after the end": [
            RECOVERY["left PROCESSING one lease after the end"]
            + RECOVERY["left RUNNING one lease after the end"]
        ],
    }
    for label, values in expected.items():
        assert differences(written(table[label]), values) == [], label
    # The header is the first row.
    assert RECOVERY["places identical to an uninterrupted collection"] == "yes"
    assert "| places identical to an uninterrupted collection | yes |" in PAGE


def test_growth_and_starts_are_those_that_were_measured() -> None:
    scale = {
        "a tick of the sensor": "tick, median (s)",
        "a tick that compares every region, once a minute": (
            "tick that compares every region, median (s)"
        ),
        "SQL statements of such a tick": "statements of such a tick",
        "a claim": "claim, median (s)",
        "`mohe status`, its start included": "mohe status, median (s)",
        "the report": "report, median (s)",
        "partition statuses for the asset's page": (
            "partition statuses for the asset's page, median (s)"
        ),
        "refresh of a known region list": "refresh of a known list (s)",
    }
    starts = {
        "import of `mohe_assets.definitions`; of it Dagster": [
            "import of mohe_assets.definitions (s)",
            "import of dagster alone (s)",
        ],
        "a run of one region, from the command to its end": [
            "a run of one region, 15 searches (s)"
        ],
    }
    table = rows_below("| | 256 sigungu | 18,865")
    assert set(table) == {*scale, *starts}
    assert SCALE["regions"][0] == 256
    assert SCALE["regions"][-1] == 18_865
    for label, name in scale.items():
        values = [SCALE[name][0], SCALE[name][-1]]
        assert differences(written(table[label]), values) == [], label
    for label, names in starts.items():
        medians = [STARTUP[name]["median"] for name in names]
        assert differences(written(table[label]), medians) == [], label


def test_places_by_plan_and_country_are_those_that_were_measured() -> None:
    columns = [
        ("base", "3,840"),
        *((plan, "25,000") for plan in ("twenty pages", "blind", "greedy")),
        ("ours", "10,000"),
        ("ours", "25,000"),
    ]
    table = rows_below("| country | base plan")
    for label, cells in table.items():
        country = label.partition(":")[0].removeprefix("the ")
        (plans,) = (
            found["plans"] for name, found in countries().items() if name.startswith(country)
        )
        values = [plans[plan][calls]["places"] for plan, calls in columns]
        assert differences(written(cells), values) == [], label
    assert len(table) == 3


def countries() -> dict[str, Any]:
    """Return the results of the first seed by country."""
    return {name: found for name, found in SEARCHED.items() if name.endswith(", seed 1")}
