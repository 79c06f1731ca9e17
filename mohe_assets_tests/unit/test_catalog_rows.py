"""A stored place as the nationwide files have it."""

import datetime as dt

import pytest

from mohe_assets.publishing.catalog import NAMES, published

SEEN = dt.datetime(2026, 11, 23, 3, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("category", "levels"),
    [
        ("카페", ["카페", None, None]),
        ("음식점>카페", ["음식점", "카페", None]),
        ("음식점 > 카페>빵", ["음식점", "카페", "빵"]),
        # What is deeper stays in the last.
        ("음식점>카페>빵>크림빵", ["음식점", "카페", "빵>크림빵"]),
    ],
)
def test_no_level_of_a_category_is_lost(category: str, levels: list[str | None]) -> None:
    row = dict.fromkeys(NAMES, "") | {
        "category": category,
        "first_seen_at": SEEN,
        "last_seen_at": SEEN,
    }
    place = published(row)
    assert place["category"] == category
    assert [place[f"category_{number}"] for number in (1, 2, 3)] == levels
