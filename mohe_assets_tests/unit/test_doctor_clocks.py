"""A clock that differs by too much is found, whichever way it differs."""

import pytest

from mohe_assets.ops import doctor
from mohe_assets.ops.doctor import MOST_SKEW_SECONDS, Level


@pytest.mark.parametrize(
    ("ahead", "level", "said"),
    [
        (MOST_SKEW_SECONDS + 1, Level.WARNING, "ahead of"),
        (-MOST_SKEW_SECONDS - 1, Level.WARNING, "behind"),
        (MOST_SKEW_SECONDS - 1, Level.OK, "ahead of"),
        (1 - MOST_SKEW_SECONDS, Level.OK, "behind"),
    ],
)
def test_a_clock_may_be_ahead_or_behind_by_so_much(ahead: float, level: Level, said: str) -> None:
    found = doctor._skew("clock of the database", ahead, "this machine's", 0)
    assert (found.level, said in found.found) == (level, True)
