"""Requests of the sensor: contiguous ranges of due regions without another holder, bounded in size
and number.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRun, RunRequest
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from hypothesis import given
from hypothesis import strategies as st

from mohe_assets.app import App
from mohe_assets.defs.runtime.recovery import collects_places
from mohe_assets.defs.runtime.region_refresh import busy_keys, sync_partition_keys
from mohe_assets.defs.runtime.runs import (
    ALL_DUE,
    REGIONS_TAG,
    SENSOR_TRIGGER,
    TRIGGER_TAG,
    region_name,
    regions_label,
)
from mohe_assets.defs.sensors import run_requests

KEYS = [f"{11000 + n * 10}_지역{n}" for n in range(20)]


def run_over(*keys: str, job: str = "ingest_places") -> DagsterRun:
    if len(keys) == 1:
        return DagsterRun(job_name=job, tags={PARTITION_NAME_TAG: keys[0]})
    first, last = keys
    return DagsterRun(
        job_name=job,
        tags={ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last},
    )


def asked(requests: list[RunRequest]) -> list[list[str]]:
    """The keys of each request, as Dagster reads its range."""
    return [
        sorted(busy_keys(KEYS, [DagsterRun(job_name="any", tags=request.tags)]))
        for request in requests
    ]


class TestBusyKeys:
    def test_a_run_of_one_partition_is_busy_with_it(self) -> None:
        assert busy_keys(KEYS, [run_over(KEYS[3])]) == {KEYS[3]}

    def test_a_range_is_busy_with_all_between_both_ends(self) -> None:
        assert busy_keys(KEYS, [run_over(KEYS[3], KEYS[6])]) == set(KEYS[3:7])

    def test_several_runs_add_up(self) -> None:
        assert busy_keys(KEYS, [run_over(KEYS[0]), run_over(KEYS[5], KEYS[6])]) == {
            KEYS[0],
            KEYS[5],
            KEYS[6],
        }

    def test_a_range_with_an_end_that_is_gone_is_no_reason_to_wait_for_anything(self) -> None:
        assert busy_keys(KEYS, [run_over(KEYS[0], "99999_없는구")]) == set()

    def test_a_run_without_partitions_is_busy_with_none(self) -> None:
        assert busy_keys(KEYS, [DagsterRun(job_name="refresh_regions")]) == set()


class TestRunRequests:
    def test_neighbours_share_a_run_and_a_gap_starts_the_next(self) -> None:
        due = {*KEYS[2:5], KEYS[6], *KEYS[9:11]}
        assert asked(list(run_requests(KEYS, due, 32, 10, under_way=1))) == [
            KEYS[2:5],
            [KEYS[6]],
            KEYS[9:11],
        ]

    def test_a_run_takes_no_more_regions_than_allowed(self) -> None:
        assert [
            len(keys) for keys in asked(list(run_requests(KEYS, KEYS, 8, 10, under_way=1)))
        ] == [8, 8, 4]

    def test_no_more_runs_are_asked_for_than_there_is_room(self) -> None:
        assert asked(list(run_requests(KEYS, KEYS, 3, 2, under_way=1))) == [KEYS[0:3], KEYS[3:6]]

    def test_runs_that_start_together_get_unequal_shares_so_that_they_do_not_end_together(
        self,
    ) -> None:
        assert [len(keys) for keys in asked(list(run_requests(KEYS, KEYS, 9, 3)))] == [3, 6, 9]
        assert [len(keys) for keys in asked(list(run_requests(KEYS, KEYS, 4, 3)))] == [2, 3, 4]
        assert [len(keys) for keys in asked(list(run_requests(KEYS, KEYS, 1, 3)))] == [1, 1, 1]
        assert [len(keys) for keys in asked(list(run_requests(KEYS, KEYS, 9, 1)))] == [9], (
            "alone it ends with nobody"
        )

    def test_a_run_that_joins_others_takes_as_many_as_allowed(self) -> None:
        assert [len(keys) for keys in asked(list(run_requests(KEYS, KEYS, 9, 1, under_way=2)))] == [
            9
        ]

    @pytest.mark.parametrize(
        ("regions", "size", "most"), [(256, 64, 5), (256, 12, 23), (18_865, 64, 296)]
    )
    def test_a_country_takes_few_runs(self, regions: int, size: int, most: int) -> None:
        """A run costs a start; from an empty field, as runs end one after the other and the next
        takes the place of each.
        """
        keys = [f"{11000 + n}_지역{n}" for n in range(regions)]
        due, under_way, runs = set(keys), list[list[str]](), 0
        while due:
            room = 3 - len(under_way)
            for request in run_requests(keys, due, size, room, under_way=len(under_way)):
                first, last = (
                    request.tags[ASSET_PARTITION_RANGE_START_TAG],
                    request.tags[ASSET_PARTITION_RANGE_END_TAG],
                )
                under_way.append(keys[keys.index(first) : keys.index(last) + 1])
                due -= set(under_way[-1])
                runs += 1
            under_way.pop(0)
        assert runs <= most

    @pytest.mark.parametrize("room", [0, -1])
    def test_without_room_nothing_is_asked_for(self, room: int) -> None:
        assert list(run_requests(KEYS, KEYS, 3, room)) == []

    def test_a_due_region_without_its_partition_yet_is_left_out(self) -> None:
        assert asked(list(run_requests(KEYS, {"99999_없는구", KEYS[1]}, 3, 5))) == [[KEYS[1]]]

    def test_a_request_names_its_regions_and_who_asked_and_can_be_asked_again(self) -> None:
        single, several = run_requests(KEYS, [KEYS[0], KEYS[4], KEYS[5]], 3, 5, under_way=1)
        assert single.tags[REGIONS_TAG] == "지역0"
        assert several.tags[REGIONS_TAG] == "지역4 … (2)"
        assert {request.tags[TRIGGER_TAG] for request in (single, several)} == {SENSOR_TRIGGER}
        assert {request.run_key for request in (single, several)} == {None}

    @given(
        due=st.sets(st.sampled_from(KEYS)),
        size=st.integers(1, 25),
        room=st.integers(0, 25),
        under_way=st.integers(0, 2),
    )
    def test_whatever_is_due_the_ranges_are_due_bounded_disjoint_and_in_the_order_of_codes(
        self, due: set[str], size: int, room: int, under_way: int
    ) -> None:
        found = asked(list(run_requests(KEYS, due, size, room, under_way=under_way)))
        flat = [key for keys in found for key in keys]
        assert flat == [key for key in KEYS if key in due][: len(flat)]
        assert all(1 <= len(keys) <= size for keys in found)
        assert len(found) <= room
        # Only the limit on runs keeps the rest from being requested.
        assert set(flat) == due or len(found) == room


class TestHowARunIsNamed:
    def test_by_its_region_in_korean_or_by_the_first_of_several(self) -> None:
        assert region_name("41111_경기도_수원시_장안구") == "경기도 수원시 장안구"
        assert regions_label(["11680_서울특별시_강남구"]) == "서울특별시 강남구"
        assert (
            regions_label(["11680_서울특별시_강남구", "11710_서울특별시_송파구"])
            == "서울특별시 강남구 … (2)"
        )
        assert regions_label([]) == ALL_DUE


class TestWhichRunsCollect:
    @pytest.mark.parametrize("job", ["ingest_places", "place_ingestion_batch"])
    def test_both_collecting_jobs_do_whoever_launched_them(self, job: str) -> None:
        assert collects_places(DagsterRun(job_name=job))

    def test_a_backfill_or_a_click_on_the_asset_does(self) -> None:
        assert collects_places(
            DagsterRun(job_name="__ASSET_JOB", asset_selection=frozenset({AssetKey("places")}))
        )

    @pytest.mark.parametrize(
        "run",
        [
            DagsterRun(job_name="refresh_regions"),
            DagsterRun(job_name="new_round"),
            DagsterRun(
                job_name="__ASSET_JOB", asset_selection=frozenset({AssetKey("sigungu_regions")})
            ),
        ],
        ids=["a refresh", "a new round", "the other asset"],
    )
    def test_other_runs_do_not(self, run: DagsterRun) -> None:
        assert not collects_places(run)


class TestMirrorPartitions:
    def test_the_keys_dagster_has_are_gone_through_no_oftener_for_twenty_regions_than_for_two(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        times = {
            len(keys): self._times_gone_through(keys, monkeypatch) for keys in (KEYS[:2], KEYS)
        }
        assert times[2] == times[20]

    @staticmethod
    def _times_gone_through(keys: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
        times = 0

        class Counted(list[str]):
            def __iter__(self) -> Iterator[str]:
                nonlocal times
                times += 1
                return super().__iter__()

        regions = SimpleNamespace(partition_keys=lambda: {key[:5]: key for key in keys})
        with DagsterInstance.ephemeral() as instance:
            monkeypatch.setattr(instance, "get_dynamic_partitions", lambda _name: Counted(keys))
            sync_partition_keys(instance, cast("App", SimpleNamespace(regions=regions)))
        return times
