"""How many distinct places the search plans bring for as many calls, in countries made in three
different ways.
"""

import argparse
import heapq
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import product

from benchmarks.search_plan_worlds import LEAVES, Country, Found
from benchmarks.simulated_stack import write
from mohe_assets.domain.search_plan import Answered, Search
from mohe_assets.settings import DEFAULT_KEYWORDS
from mohe_assets.simulator.region_list import base_dongs, base_sigungu
from mohe_assets.sources.naver_local.plan import Sort, base_plan
from mohe_assets.sources.naver_local.refinement import RegionPlan

MARKS = (3_840, 5_700, 10_000, 25_000)
NAMES = {base: base_sigungu()[base].name for base in LEAVES}
Asked = Iterator[Found]


def base(country: Country) -> Asked:
    for name in NAMES.values():
        for search in base_plan(name, country.keywords):
            yield country.ask(search.query, search.sort)


def both_orders(country: Country) -> Asked:
    yield from base(country)
    for name in NAMES.values():
        for search in base_plan(name, country.keywords):
            if country.ask(search.query, Sort.ACCURACY).result_count == 5:
                yield country.ask(search.query, Sort.REVIEWS)


def twenty_pages(country: Country) -> Asked:
    """The system this replaces: twenty pages of a search that has none."""
    for name, keyword, _ in product(NAMES.values(), country.keywords, range(20)):
        yield country.ask(f"{name} {keyword}", Sort.ACCURACY)


def blind(country: Country) -> Asked:
    yield from base(country)
    texts = [
        f"{NAMES[code]} {dong} {word}"
        for code in LEAVES
        for dong in base_dongs()[code]
        for word in country.keywords
    ]
    random.Random(country.seed).shuffle(texts)
    for query in texts:
        yield country.ask(query, Sort.ACCURACY)


def greedy(country: Country) -> Asked:
    """Both orders, then the dongs of full keywords where (region, dong) has been paying, drawn
    towards its region.
    """
    yield from both_orders(country)
    known: dict[str, set[int]] = {code: set() for code in LEAVES}
    task: dict[tuple[str, str], list[str]] = {}
    paid = {
        code: [5.0, 10.0] for code in LEAVES
    }  # calls and new places, five imagined calls of two
    for code, name in NAMES.items():
        answers = {
            keyword: country.ask(f"{name} {keyword}", Sort.ACCURACY) for keyword in country.keywords
        }
        full = [keyword for keyword, found in answers.items() if found.result_count == 5]
        known[code].update(*(found.ids for found in answers.values()))
        known[code].update(
            *(country.ask(f"{name} {keyword}", Sort.REVIEWS).ids for keyword in full)
        )
        task |= {(code, dong): list(full) for dong in base_dongs()[code] if full}
    own = {group: [0.0, 0.0] for group in task}

    def worth(group: tuple[str, str]) -> float:
        calls, new = paid[group[0]]
        return -(1.5 * new / calls + own[group][1]) / (1.5 + own[group][0])

    heap = [(worth(group), group) for group in task]
    heapq.heapify(heap)
    while heap:
        _, group = heapq.heappop(heap)
        if heap and worth(group) > heap[0][0]:
            heapq.heappush(heap, (worth(group), group))
            continue
        code, dong = group
        found = country.ask(f"{NAMES[code]} {dong} {task[group].pop(0)}", Sort.ACCURACY)
        for counts in (paid[code], own[group]):
            counts[0] += 1
            counts[1] += len(set(found.ids) - known[code])
        known[code].update(found.ids)
        yield found
        if task[group]:
            heapq.heappush(heap, (worth(group), group))


@dataclass(kw_only=True)
class Claims:
    """The protocol of the workers: claim the region with the highest expected gain, do a slice,
    release it. A claim rebuilds the plan from the ledger, as after a crash. A slice ends after
    `most` searches, or when the next gain is below `share` of the best gain of an unclaimed region.
    """

    country: Country
    threads: int
    most: int
    share: float
    rate_limiter: int
    with_tallies: bool = True
    with_categories: bool = True
    ledger: dict[str, list[Answered]] = field(default_factory=lambda: {code: [] for code in LEAVES})
    tallies: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    claims: int = 0

    def __call__(self) -> Asked:
        for code, name in NAMES.items():
            for search in base_plan(name, self.country.keywords):
                yield self._perform(code, search)[0]
        self.free = [(-best[1], code) for code in LEAVES if (best := self._plan(code).best())]
        heapq.heapify(self.free)
        workers = [self._slice() for _ in range(min(self.threads, len(self.free)))]
        while workers:
            for at in range(len(workers)):
                found = next(workers[at], None)
                while found is None and self.free:
                    workers[at] = self._slice()
                    found = next(workers[at], None)
                if found is not None:
                    yield found
            if (
                not self.free
            ):  # all is exhausted, but for what the other workers hold: a handful of searches
                return

    def _plan(self, code: str) -> RegionPlan:
        tallies = dict(self.tallies) if self.with_tallies else None
        return RegionPlan(
            NAMES[code],
            base_dongs()[code],
            self.country.keywords,
            self.ledger[code],
            tallies=tallies,
        )

    def _slice(self) -> Asked:
        _, code = heapq.heappop(self.free)
        self.claims += 1
        plan = self._plan(code)
        for done in range(self.most + 1):
            best = plan.best()
            if best is None or plan.calls >= self.rate_limiter:
                return
            if done == self.most or (
                done and self.free and best[1] < self.share * -self.free[0][0]
            ):
                heapq.heappush(self.free, (-best[1], code))
                return
            found, answered = self._perform(code, best[0])
            calls, new = self.tallies.get((answered.stage, answered.keyword), (0, 0))
            self.tallies[answered.stage, answered.keyword] = calls + 1, new + plan.learn(answered)
            yield found

    def _perform(self, code: str, search: Search) -> tuple[Found, Answered]:
        found = self.country.ask(search.query, search.sort)
        answered = Answered(
            query=search.query,
            sort=search.sort,
            keyword=search.keyword,
            stage=search.stage,
            dong_name=search.dong_name,
            result_count=found.result_count,
            place_ids=found.ids,
            categories=found.categories if self.with_categories else (),
        )
        self.ledger[code].append(answered)
        return found, answered


def measure(country: Country, asked: Asked) -> dict[str, dict[str, float]]:
    """Distinct true places at each mark; a plan that ends earlier keeps its last figure."""
    result, found, calls = {}, set[int](), 0
    for mark in MARKS:
        while calls < mark and (answer := next(asked, None)):
            found.update(answer.ids)
            calls += 1
        places, wanted = len(found & country.true), len(found & country.wanted)
        result[f"{mark:,}"] = {
            "calls": calls,
            "places": places,
            "per 1,000 calls": round(1000 * places / calls),
            "recall": round(wanted / len(country.wanted), 3),
        }
    return result


def compare(
    made: tuple[str, int], arguments: argparse.Namespace
) -> tuple[str, Mapping[str, object]]:
    name, seed = made
    country = Country(name=name, seed=seed, keywords=DEFAULT_KEYWORDS)
    ours = partial(
        Claims,
        country=country,
        threads=arguments.threads,
        most=arguments.slice,
        share=arguments.share,
        rate_limiter=arguments.rate_limiter,
    )
    plans: dict[str, Callable[[], Asked]] = {
        "twenty pages": partial(twenty_pages, country),
        "base": partial(base, country),
        "base in both orders": partial(both_orders, country),
        "blind": partial(blind, country),
        "greedy": partial(greedy, country),
        "ours": (full := ours()),
    }
    if arguments.parts:
        plans["ours without categories"] = ours(with_categories=False)
        plans["ours without nationwide counts"] = ours(with_tallies=False)
    table = {label: measure(country, plan()) for label, plan in plans.items()}
    places = {label: marks["25,000"]["places"] for label, marks in table.items()}
    lengths = sorted(map(len, full.ledger.values()))
    return f"{name}, seed {seed}", {
        "places in all": len(country.true),
        "places a keyword means": len(country.wanted),
        "ours over base": round(places["ours"] / places["base"], 2),
        "ours over blind": round(places["ours"] / places["blind"], 2),
        "ours over greedy": round(places["ours"] / places["greedy"], 2),
        "searches a claim": round((MARKS[-1] - MARKS[0]) / full.claims, 1),
        "calls a region, median and most": [lengths[len(lengths) // 2], lengths[-1]],
        "plans": table,
    }


def show(label: str, result: Mapping[str, object]) -> None:
    print(f"\n{label}")
    for name, value in result.items():
        if name != "plans":
            print(f"  {name}: {value}")
    plans = result["plans"]
    assert isinstance(plans, dict)  # noqa: S101 - made above
    for plan, marks in plans.items():
        cells = (f"{mark['places']:>7,.0f} ({mark['recall']:.0%})" for mark in marks.values())
        print(f"  {plan:<32}" + "  ".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", default="simulator,even")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--long", action="store_true", help="three countries with two seeds")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--slice", type=int, default=20, help="most searches a claim")
    parser.add_argument(
        "--share",
        type=float,
        default=0.5,
        help="of the best promise elsewhere, below which a slice ends",
    )
    parser.add_argument(
        "--budget", type=int, default=1_000, help="most searches a region, base included"
    )
    parser.add_argument(
        "--parts",
        action="store_true",
        help="also ours without categories, and without nationwide counts",
    )
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.long:
        arguments.worlds, arguments.seeds = "simulator,steep,even", "1,2"
    countries = [
        (world, int(seed))
        for seed, world in product(arguments.seeds.split(","), arguments.worlds.split(","))
    ]
    protocol = {name: getattr(arguments, name) for name in ("threads", "slice", "share", "budget")}
    results: dict[str, Mapping[str, object]] = {}
    with ProcessPoolExecutor(arguments.processes) as pool:
        for label, result in pool.map(partial(compare, arguments=arguments), countries):
            results[label] = result
            show(label, result)
    print()
    write(
        "search_plan" if arguments.long else "search_plan_short", {"protocol": protocol, **results}
    )


if __name__ == "__main__":
    main()
