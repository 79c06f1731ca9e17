"""`mohe doctor`: each thing that can be wrong is found, named, and comes with what to do; nothing
else is.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from mohe_assets.cli import doctor as doctor_command
from mohe_assets.ops import doctor
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.settings import Settings
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.dagster_state import DAEMONS
from mohe_assets.store.database import Database
from mohe_assets_tests.support.commands import Ended, Mohe
from mohe_assets_tests.support.dagster_instances import dagster_instance
from mohe_assets_tests.support.stores import Store

WRITE = os.W_OK | os.X_OK
NEEDLES = ("GovtNeedle7731", "SecretNeedle9083", "PasswordNeedle1207")
Examine = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a date before the end of the classic API, and restore the environment: the command sets
    DAGSTER_HOME.
    """
    monkeypatch.setattr(doctor, "classic_ends", lambda _, uses_hub: None)  # noqa: ARG005 - its signature
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def store(store: Store) -> Store:
    """With a dong in each region: without any the list is incomplete."""
    store.execute(
        "INSERT INTO legal_dong (region_type, region_code, dong_name) "
        "SELECT region_type, region_code, '동' FROM region"
    )
    return store


@pytest.fixture
def examine(mohe: Mohe) -> Examine:
    """Findings by check; the exit status is 1 exactly if one is an error."""

    def run(*arguments: str, **how: Any) -> dict[str, dict[str, Any]]:
        done: Ended = mohe("doctor", "--json", *arguments, **how)
        found = json.loads(done.out)
        assert done.status == any(one["level"] == "error" for one in found), done
        assert not any(needle in done.out + done.err for needle in NEEDLES)
        return {one["check"]: one for one in found}

    return run


def wrong(found: dict[str, dict[str, Any]]) -> set[str]:
    return {check for check, one in found.items() if one["level"] != "ok"}


def test_a_sound_installation_has_one_call_sent_with_each_key_and_counted(
    examine: Examine, store: Store, simulator: Simulator
) -> None:
    found = examine()
    assert wrong(found) == {"daemon"}, "no daemon runs in a test"
    assert "demo-client-secret" not in json.dumps(found)
    stats = simulator.stats(brief=True)
    assert (stats["naver"]["received"], stats["regions"]["received"]) == (1, 1)
    assert store.read("SELECT reserved FROM api_usage") == [{"reserved": 1}]
    assert "20,560 rows" in found["GOVT_API_KEY"]["found"]


def test_without_calls_none_is_sent(examine: Examine, store: Store, simulator: Simulator) -> None:
    del store
    assert "NAVER_CLIENT_ID" not in examine("--no-calls")
    stats = simulator.stats(brief=True)
    assert (stats["naver"]["received"], stats["regions"]["received"]) == (0, 0)


def test_for_people_it_is_a_line_each_with_advice_below(mohe: Mohe, store: Store) -> None:
    del store
    done = mohe("doctor", "--no-calls", MOHE_DAILY_QOUTA="5")
    assert (
        "warning settings: MOHE_DAILY_QOUTA is set, but is no setting.\n        → Did you mean "
        "MOHE_DAILY_QUOTA?" in done.out
    )
    assert "0 errors, 2 warnings" in done.out


def test_a_finding_that_quotes_a_server_is_shown_as_text(
    mohe: Mohe, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[/red] \x1b[31m\u202e[bold]"
    found = doctor.Finding(check="key", level=doctor.Level.ERROR, found=text, advice=text)
    monkeypatch.setattr(doctor_command, "_examine", lambda calls: iter([found]))  # noqa: ARG005 - its signature
    done = mohe("doctor")
    assert (done.status, done.out.count("[/red] [31m[bold]")) == (1, 2)
    assert all(letter.isprintable() or letter == "\n" for letter in done.out)


def test_a_bad_setting_is_all_that_is_looked_at(examine: Examine) -> None:
    found = examine(MOHE_DAILY_QUOTA="many")
    assert list(found) == ["settings"]
    assert found["settings"]["found"] == "MOHE_DAILY_QUOTA is 'many'; it has to be a whole number."


def test_refused_keys_are_named_and_the_platform_knows_them_as_blocked(
    examine: Examine, store: Store
) -> None:
    found = examine(GOVT_API_KEY=NEEDLES[0], NAVER_CLIENT_SECRET=NEEDLES[1])
    assert wrong(found) == {"GOVT_API_KEY", "NAVER_CLIENT_ID", "daemon"}
    assert "GOVT_API_KEY" in found["GOVT_API_KEY"]["found"]
    assert "NAVER_CLIENT_SECRET" in found["NAVER_CLIENT_ID"]["found"]
    assert "mohe unblock" in found["NAVER_CLIENT_ID"]["advice"]
    assert len(store.read("SELECT 1 AS one FROM api_budget WHERE blocked IS NOT NULL")) == 1
    again = examine(GOVT_API_KEY=NEEDLES[0], NAVER_CLIENT_SECRET=NEEDLES[1])
    assert again["NAVER_CLIENT_ID"]["level"] == "error"
    assert store.read("SELECT reserved FROM api_usage") == [{"reserved": 1}], (
        "blocked keys are not sent again"
    )


def test_a_used_up_quota_is_no_error_and_says_until_when(
    examine: Examine, store: Store, simulator: Simulator
) -> None:
    del store
    simulator.configure(daily_quota=0)
    found = examine()
    assert found["NAVER_CLIENT_ID"]["level"] == "warning"
    assert "no call is left until" in found["NAVER_CLIENT_ID"]["found"]


def test_an_api_that_cannot_be_reached_is_an_error_after_one_try(
    examine: Examine, store: Store
) -> None:
    del store
    nowhere = "http://127.0.0.1:1"
    found = examine(MOHE_NAVER_API_URL=nowhere, MOHE_GOVERNMENT_API_URL=nowhere)
    assert wrong(found) == {"GOVT_API_KEY", "NAVER_CLIENT_ID", "daemon"}
    assert "clock of the search API" not in found


def test_hub_keys_are_tried_on_their_own_host(examine: Examine, store: Store) -> None:
    del store
    keys = SimulatorConfig()
    found = examine(NCP_APIGW_API_KEY_ID=keys.hub_key_id, NCP_APIGW_API_KEY=keys.hub_key)
    assert found["NCP_APIGW_API_KEY"]["level"] == "ok"
    assert "NAVER API HUB" in found["settings"]["found"]


def test_the_end_of_the_classic_api_is_a_warning(
    examine: Examine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    monkeypatch.setattr(
        doctor, "classic_ends", lambda _, uses_hub: None if uses_hub else "It ends."
    )
    found = examine("--no-calls")["classic API"]
    assert (found["level"], found["found"]) == ("warning", "It ends.")


def test_a_database_that_is_away_is_said_without_its_password(examine: Examine) -> None:
    found = examine(MOHE_DATABASE_URL=f"postgresql://someone:{NEEDLES[2]}@127.0.0.1:1/mohe")
    assert found["database"]["level"] == "error"
    assert "MOHE_DATABASE_URL" in found["database"]["advice"]
    assert "daemon" not in found


def test_an_old_schema_is_an_error_and_is_not_touched(
    examine: Examine, empty_database_url: str
) -> None:
    found = examine(MOHE_DATABASE_URL=empty_database_url)
    assert found["schema"]["level"] == "error"
    assert "mohe db migrate" in found["schema"]["advice"]
    empty = Database.connect(empty_database_url)
    assert (
        empty.transaction(
            lambda c: c.exec_driver_sql("SELECT to_regclass('batch_checkpoint')").scalar()
        )
        is None
    )
    empty.close()


def test_a_dagster_database_that_is_missing(
    examine: Examine, store: Store, postgres: EmbeddedServer
) -> None:
    del store
    found = examine(MOHE_DAGSTER_DATABASE_URL=postgres.url("nobody_made_this"))
    assert found["Dagster's database"]["level"] == "error"
    assert "mohe db migrate" in found["Dagster's database"]["advice"]


def test_an_embedded_server_that_is_down_is_a_warning_and_is_not_started(examine: Examine) -> None:
    home = Path(tempfile.mkdtemp(prefix="mohe-tests-"))
    home.chmod(0o755)
    server = EmbeddedServer(home=home)
    own = {"MOHE_HOME": str(home), "without": ("MOHE_DATABASE_URL", "MOHE_DAGSTER_DATABASE_URL")}
    try:
        found = examine(**own)
        assert found["embedded server"]["level"] == "warning"
        assert "`mohe db start`" in found["embedded server"]["found"]
        assert not {"database", "schema", "regions", "runs", "daemon"} & set(found)
        assert not server.running
        server.start()
        assert examine(**own)["embedded server"]["found"] == f"runs in {server.data}"
    finally:
        server.stop()
        shutil.rmtree(server.data)
        shutil.rmtree(home)


def test_clocks_that_differ_are_a_warning(
    examine: Examine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    monkeypatch.setattr(doctor, "seconds_ahead", lambda _: 400.0)
    found = examine()["clock of the search API"]
    assert (found["level"], found["found"][:5]) == ("warning", "400.0")


def test_silent_runs_regions_given_up_and_a_snapshot_are_warnings(
    examine: Examine, store: Store
) -> None:
    store.executions.start("silent-run")
    store.execute(
        "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '61 seconds'"
    )
    store.fail(store.claim("11680"), final=True)
    found = examine()
    assert "silent-r" in found["runs"]["found"]
    assert "mohe release" in found["runs"]["advice"]
    assert "1 FAILED, without automatic retry" in found["regions"]["found"]
    store.execute("UPDATE region_refresh SET source = 'snapshot'")
    assert "bundled snapshot" in examine()["regions"]["found"]


def test_little_room_and_a_folder_of_somebody_else(
    examine: Examine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 10**18)
    assert examine()["MOHE_HOME"]["level"] == "warning"
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != WRITE and access(path, mode))
    assert examine()["MOHE_HOME"]["level"] == "error"


@pytest.fixture
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's own storage, in this test's database."""
    with dagster_instance(settings) as instance:
        yield instance


def test_the_daemon_is_judged_by_its_heartbeat_and_the_sensor_by_its_last_tick(
    examine: Examine, store: Store, instance: dg.DagsterInstance
) -> None:
    del store
    assert "CHECKPOINT_AUTO_RESUME" in examine(CHECKPOINT_AUTO_RESUME="false")["daemon"]["found"]
    nothing = "no daemon is alive: no run is launched automatically."
    assert examine()["daemon"]["found"] == nothing
    _hear_of_daemons(instance, seconds_ago=300)
    assert examine()["daemon"]["found"] == nothing
    _hear_of_daemons(instance, seconds_ago=20)
    assert examine()["daemon"]["found"] == "alive, but pending_region_sensor has not ticked yet."
    _switch_sensor(instance)
    _tick(instance, seconds_ago=400)
    assert examine()["daemon"]["found"].startswith(
        "alive, but pending_region_sensor has not ticked for 40"
    )
    _tick(instance, seconds_ago=10)
    assert examine()["daemon"]["found"] == "alive; the sensor launches runs for due regions"
    _switch_sensor(instance, stopped=True)
    assert examine()["daemon"]["found"] == "pending_region_sensor was stopped in the UI."


def test_a_sensor_whose_last_tick_failed_is_an_error_with_its_message(
    examine: Examine, mohe: Mohe, store: Store, instance: dg.DagsterInstance
) -> None:
    del store
    _hear_of_daemons(instance, seconds_ago=20)
    _switch_sensor(instance)
    _tick(instance, seconds_ago=20)
    _tick(instance, seconds_ago=10, error="ValueError: Invalid isoformat string: '0'\nand more\n")
    sentence = (
        "The last tick of pending_region_sensor failed: ValueError: Invalid isoformat string: '0'"
    )
    found = examine()["daemon"]
    assert (found["level"], found["found"]) == ("error", sentence)
    assert json.loads(mohe("status", "--json").out)["warnings"] == [sentence]
    assert "none is alive; the daemon runs and launches runs for due regions" in mohe("status").out
    _tick(instance, seconds_ago=5)
    assert examine()["daemon"]["level"] == "ok"
    assert json.loads(mohe("status", "--json").out)["warnings"] == []


def test_what_ended_with_its_daemon_is_not_held_against_a_later_one(
    mohe: Mohe, store: Store, instance: dg.DagsterInstance
) -> None:
    del store
    _hear_of_daemons(instance, seconds_ago=300)
    _switch_sensor(instance)
    _tick(instance, seconds_ago=290, error="some error")
    assert json.loads(mohe("status", "--json").out)["warnings"] == []
    assert json.loads(mohe("status", "--json").out)["daemon_alive"] is False


def _hear_of_daemons(instance: dg.DagsterInstance, *, seconds_ago: float) -> None:
    for name in DAEMONS:
        instance.add_daemon_heartbeat(
            DaemonHeartbeat(time.time() - seconds_ago, name, "a-daemon", [])
        )


def _sensor_origin() -> RemoteInstigatorOrigin:
    location = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="mohe_assets.definitions")
    )
    return RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(location, "__repository__"), "pending_region_sensor"
    )


def _switch_sensor(instance: dg.DagsterInstance, *, stopped: bool = False) -> None:
    """As the daemon does at its first look, and the UI's switch."""
    status = InstigatorStatus.STOPPED if stopped else InstigatorStatus.DECLARED_IN_CODE
    state = InstigatorState(
        _sensor_origin(), InstigatorType.SENSOR, status, SensorInstigatorData(sensor_type=None)
    )
    change = instance.update_instigator_state if stopped else instance.add_instigator_state
    change(state)


def _tick(instance: dg.DagsterInstance, *, seconds_ago: float, error: str | None = None) -> None:
    """As the daemon records one."""
    origin = _sensor_origin()
    status = TickStatus.FAILURE if error else TickStatus.SKIPPED
    instance.create_tick(
        TickData(
            origin.get_id(),
            origin.instigator_name,
            InstigatorType.SENSOR,
            status,
            time.time() - seconds_ago,
            selector_id=origin.get_selector().get_id(),
            error=SerializableErrorInfo(error, [], None) if error else None,
        )
    )
