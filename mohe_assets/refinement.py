"""temporary"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mohe_assets.search_plan import Search, Sort, Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    query: str
    sort: str
    keyword: str
    stage: str
    dong_name: str | None
    result_count: int
    place_ids: tuple[int, ...]


class RegionPlan:
    def __init__(self, region_name: str, dongs: Sequence[str], keywords: Sequence[str], history: Collection[Answered]) -> None:
        self._name, self._dongs, self._keywords = region_name, dongs, keywords
        self._history = list(history)

    def best(self) -> tuple[Search, float] | None:
        done = {(one.query, one.sort) for one in self._history}
        for one in self._history:
            if one.result_count >= 5 and one.stage == "base" and (one.query, "comment") not in done:
                return Search(query=one.query, sort=Sort.REVIEWS, keyword=one.keyword, stage=Stage.SORT), 2.0
        return None

    def learn(self, answered: Answered) -> None:
        self._history.append(answered)


def answered(search: Search, result_count: int, place_ids: Sequence[int]) -> Answered:
    return Answered(
        query=search.query, sort=search.sort.value, keyword=search.keyword, stage=search.stage.value,
        dong_name=search.dong_name, result_count=result_count, place_ids=tuple(place_ids),
    )  # fmt: skip
