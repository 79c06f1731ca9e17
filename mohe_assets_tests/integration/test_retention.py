"""What retention deletes of the ledger, what it leaves, and that a dump can be restored."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mohe_assets.app import App
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.simulator.server import Simulator
from mohe_assets.store import retention as retention_module
from mohe_assets.store.database import Database
from mohe_assets.store.retention import Retention
from mohe_assets_tests.support.collections import collect
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.stores import Store

pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
def store(database: Database) -> Store:
    """All regions without their dongs, which a base plan does not need."""
    return Store.of(database, codes=[region.region_code for region in bundled_snapshot().regions])


TWO = frozenset({"11110", "11680"})
ROUNDS = """SELECT region_code, round, count(*) AS searches FROM search_query
             GROUP BY 1, 2 ORDER BY 1, 2"""
PLACES = "SELECT * FROM places ORDER BY id"
LONG_AGO = """UPDATE search_query SET answered_at = answered_at - interval '100 days'
                WHERE round = :round"""
FIRST_SEEN = "UPDATE places SET first_seen_at = first_seen_at - interval '100 days'"


@pytest.fixture(scope="module")
def template(regions_template: str) -> str:
    return regions_template


@pytest.fixture
def three_rounds(few: App, store: Store) -> App:
    """Two regions collected three times, the first two rounds a hundred days ago."""
    for number in range(3):
        if number:
            few.checkpoints.new_round(sorted(TWO))
        collect(few, TWO, f"run-{number}")
    store.execute(LONG_AGO, round=1)
    store.execute(LONG_AGO, round=2)
    store.execute(FIRST_SEEN)
    return few


def received(simulator: Simulator) -> int:
    return int(simulator.stats(brief=True)["naver"]["received"])


def rounds(store: Store) -> list[tuple[str, int]]:
    return [(row["region_code"], row["round"]) for row in store.read(ROUNDS)]


def test_only_old_searches_of_rounds_before_the_last_two_are_deleted(
    three_rounds: App, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "DELETED_AT_ONCE", 1)
    before, retention = store.read(PLACES), three_rounds.retention
    assert retention.delete_searches(101) == 0
    assert retention.expired_searches(99) == 4
    assert retention.delete_searches(99) == 4
    assert rounds(store) == [("11110", 2), ("11110", 3), ("11680", 2), ("11680", 3)]
    assert store.read(PLACES) == before
    assert retention.delete_searches(1) == 0


def test_a_region_half_collected_goes_on_after_retention_without_a_search_twice(
    three_rounds: App, store: Store, simulator: Simulator
) -> None:
    three_rounds.checkpoints.new_round(sorted(TWO))
    calls = received(simulator)
    lease = store.claim("11680", "run-4")
    store.store(lease, 0)
    store.reclaim("run-4")
    # Even at the shortest time, the present round and the one before it stay.
    assert three_rounds.retention.delete_searches(0) == 8
    collect(three_rounds, TWO, "run-5")
    assert received(simulator) - calls == 3
    assert rounds(store) == [("11110", 3), ("11110", 4), ("11680", 3), ("11680", 4)]


def test_a_replay_of_what_is_left_keeps_first_days_and_texts_that_only_old_searches_had(
    three_rounds: App, store: Store
) -> None:
    store.execute("UPDATE places SET phone = '02-1', website_url = 'https://old.example'")
    before = store.read("SELECT id, first_seen_at, phone, website_url FROM places ORDER BY id")
    ledger = "SELECT id, new_places, place_ids FROM search_query ORDER BY id"
    three_rounds.retention.delete_searches(99)
    left = store.read(ledger)
    done = three_rounds.replay()
    assert (done.added, done.removed) == (0, 0)
    after = store.read("SELECT id, first_seen_at, phone, website_url FROM places ORDER BY id")
    assert [row["first_seen_at"] for row in after] == [row["first_seen_at"] for row in before]
    assert {row["website_url"] for row in after} - {""} >= {"https://old.example"}
    assert store.read(ledger) == left


class TestSizes:
    def test_growth_is_the_mean_since_the_earliest_measurement_of_the_last_month(
        self, store: Store, database: Database
    ) -> None:
        retention = Retention(database=database)
        store.execute("DELETE FROM database_size")
        assert retention.size("data", 1_000).growth_per_day is None
        for hours, size in ((24 * 40, 1), (48, 1_000), (6, 2_500)):
            store.execute(
                """INSERT INTO database_size (database, measured_at, bytes)
                   VALUES ('data', now() - make_interval(hours => :hours), :bytes)""",
                hours=hours,
                bytes=size,
            )
        assert retention.size("data", 3_000).growth_per_day == 1_000
        store.execute("DELETE FROM database_size WHERE measured_at < now() - interval '7 hours'")
        assert retention.size("data", 3_000).growth_per_day is None

    def test_status_names_both_databases_or_the_one_that_is_both(
        self, store: Store, mohe: Mohe, empty_database_url: str
    ) -> None:
        del store
        assert "Dagster's" not in mohe("status").out
        found = json.loads(
            mohe("status", "--json", MOHE_DAGSTER_DATABASE_URL=empty_database_url).out
        )["databases"]
        assert [one["name"] for one in found] == ["data", "dagster"]
        assert all(one["bytes"] > 1_000_000 for one in found)
        gone = mohe("status", MOHE_DAGSTER_DATABASE_URL=f"{empty_database_url}_missing")
        assert gone.status == 0
        assert "Dagster's cannot be read" in gone.out


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_a_dump_is_restored_by_the_command_its_help_names_and_the_collection_goes_on(
    form: str,
    few: App,
    store: Store,
    simulator: Simulator,
    database_url: str,
    empty_database_url: str,
    postgres: EmbeddedServer,
    process_environment: Callable[..., Environment],
    open_app: Callable[..., App],
) -> None:
    collect(few, frozenset({"11110"}), "before")
    before = store.everything()
    bin_folder = postgres.pg_dump().parent
    dump = _run(
        ["mohe", "db", "dump", f"--format={form}"],
        env=process_environment(MOHE_DATABASE_URL=database_url),
    )
    target = f"--dbname={empty_database_url}"
    command = {
        "custom": [str(bin_folder / "pg_restore"), "--no-owner", "--exit-on-error", target],
        "plain": [str(bin_folder / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", target],
    }[form]
    _run(command, env=process_environment(), given=dump)
    restored = open_app(MOHE_DATABASE_URL=empty_database_url)
    copy = Store(
        database=restored.database,
        checkpoints=restored.checkpoints,
        executions=restored.executions,
    )
    assert copy.everything() == before
    calls = received(simulator)
    collect(restored, TWO, "after")
    assert received(simulator) - calls == 2
    assert {row["region_code"] for row in copy.read(ROUNDS)} == TWO


def _run(command: list[str], *, env: Any, given: bytes | None = None) -> bytes:
    if command[0] == "mohe":
        command = [str(Path(sys.executable).with_name("mohe")), *command[1:]]
    done = subprocess.run(
        command, env=env, input=given, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
