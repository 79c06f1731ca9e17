"""The row of a run: started, beating, ended; and how a run that ended without a word is found."""

import datetime as dt
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
from sqlalchemy import text

from mohe_assets.collection.heartbeat import RunSession
from mohe_assets.errors import StopRequested
from mohe_assets.store.executions import Ending, Process, host_identity
from mohe_assets_tests.support.processes import soon
from mohe_assets_tests.support.stores import Store, place


def run_row(store: Store, run_id: str = "run") -> dict[str, object]:
    return store.read(
        "SELECT * FROM batch_execution_metadata WHERE execution_id = :run", run=run_id
    )[0]


def belong_to(store: Store, process: Process, run_id: str = "run") -> None:
    """The run was started by that process."""
    store.execute(
        """UPDATE batch_execution_metadata SET host = :host, process_id = :pid,
             process_started = :started
            WHERE execution_id = :run""",
        host=process.host,
        pid=process.process_id,
        started=process.process_started,
        run=run_id,
    )


def fall_silent(store: Store, seconds: float = 61, run_id: str = "run") -> None:
    store.execute(
        "UPDATE batch_execution_metadata SET heartbeat_at = now() - make_interval(secs => :s) "
        "WHERE execution_id = :run",
        s=seconds,
        run=run_id,
    )


@contextmanager
def living_process() -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = psutil.Process(child.pid).create_time()
        yield child, Process(host=host_identity(), process_id=child.pid, process_started=started)
        child.kill()


class TestRow:
    def test_a_run_is_running_with_this_process_in_it(self, store: Store) -> None:
        store.executions.start("run", total=9)
        row = run_row(store)
        this = Process.current()
        assert (row["status"], row["total_regions"], row["batch_name"]) == (
            "RUNNING",
            9,
            "place-ingestion-batch",
        )
        assert (row["host"], row["process_id"], row["process_started"]) == (
            this.host,
            this.process_id,
            this.process_started,
        )
        assert this.gone is False

    def test_totals_follow_the_regions_in_the_same_transactions(self, store: Store) -> None:
        store.executions.start("run", total=2)
        lease = store.claim("11680")
        store.store(lease, 0, [place("a")])
        store.store(lease, 1, calls=3)

        store.finish(lease, also=lambda c: store.executions.tally(c, "run"))
        row = run_row(store)
        assert (row["completed_regions"], row["failed_regions"]) == (1, 0)
        assert row["last_checkpoint_id"] == store.row("11680")["id"]

        store.fail(store.claim("11110"), also=lambda c: store.executions.tally(c, "run"))
        row = run_row(store)
        assert (row["completed_regions"], row["failed_regions"], row["total_regions"]) == (1, 1, 2)
        assert row["last_checkpoint_id"] == store.row("11110")["id"]

        store.claim("11140")
        assert store.executions.finish("run", Ending.FAILED, "1 regions failed") is True
        row = run_row(store)
        assert (row["status"], row["note"], row["total_regions"]) == (
            "FAILED",
            "1 regions failed",
            3,
        )
        assert row["calls_used"] == 4
        assert row["end_time"] is not None

    def test_an_ended_run_does_not_beat_and_does_not_end_again(self, store: Store) -> None:
        store.executions.start("run")
        assert store.executions.heartbeat("run") is True
        store.executions.finish("run", Ending.COMPLETED)
        before = run_row(store)
        assert store.executions.heartbeat("run") is False
        assert store.executions.finish("run", Ending.FAILED) is False
        assert run_row(store)["status"] == before["status"] == "COMPLETED"
        assert store.executions.heartbeat("no such run") is False

    def test_a_run_that_is_started_again_takes_its_row_up_again(self, store: Store) -> None:
        store.executions.start("run")
        store.executions.finish("run", Ending.INTERRUPTED, "stopped")
        store.executions.mark_ended_in_dagster(["run"])
        store.executions.start("run")
        row = run_row(store)
        assert (row["status"], row["note"], row["end_time"], row["dagster_ended_at"]) == (
            "RUNNING",
            None,
            None,
            None,
        )


class TestDeadRuns:
    def test_a_living_run_is_left_alone(self, store: Store) -> None:
        store.executions.start("run")
        store.claim()
        fall_silent(store, seconds=59)
        reaped = store.executions.reap_dead_runs(store.checkpoints)
        assert (reaped.dead_runs, reaped.regions) == ((), ())
        assert run_row(store)["status"] == "RUNNING"

    def test_a_run_that_was_silent_for_its_lease_is_interrupted_and_loses_its_regions(
        self, store: Store
    ) -> None:
        store.executions.start("run", total=4)
        done = store.claim("11110")
        store.complete(done)
        store.store(store.claim("11680"), 0, calls=2)
        fall_silent(store)
        last_heard = run_row(store)["heartbeat_at"]

        reaped = store.executions.reap_dead_runs(store.checkpoints)

        assert (reaped.dead_runs, reaped.regions) == (("run",), ("11680",))
        row = run_row(store)
        assert (row["status"], row["end_time"], row["calls_used"]) == ("INTERRUPTED", last_heard, 4)
        assert (store.row("11680")["status"], store.row("11110")["status"]) == (
            "PENDING",
            "COMPLETED",
        )
        again = store.executions.reap_dead_runs(store.checkpoints)
        assert (again.dead_runs, again.regions) == ((), ())

    def test_a_run_without_any_heartbeat_is_dead(self, store: Store) -> None:
        store.execute("INSERT INTO batch_execution_metadata (batch_name, execution_id)"
                      " VALUES ('place-ingestion-batch', 'old')")  # fmt: skip
        assert store.executions.reap_dead_runs(store.checkpoints).dead_runs == ("old",)

    def test_a_process_that_is_gone_is_noticed_at_once_even_as_a_zombie(self, store: Store) -> None:
        store.executions.start("run")
        store.claim()
        with living_process() as (child, process):
            belong_to(store, process)
            assert store.executions.reap_dead_runs(store.checkpoints).dead_runs == ()
            child.kill()
            while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
                pass
            assert process.gone
        assert process.gone
        reaped = store.executions.reap_dead_runs(store.checkpoints)
        assert (reaped.dead_runs, reaped.regions) == (("run",), ("11680",))

    def test_a_process_id_that_another_process_has_now_does_not_keep_a_run_alive(
        self, store: Store
    ) -> None:
        store.executions.start("run")
        with living_process() as (_, process):
            reused = Process(
                host=process.host,
                process_id=process.process_id,
                process_started=process.process_started - 60,
            )
            belong_to(store, reused)
            assert store.executions.reap_dead_runs(store.checkpoints).dead_runs == ("run",)

    @pytest.mark.parametrize(("silent_for", "dead"), [(1.0, ()), (61.0, ("run",))])
    def test_the_process_of_another_host_is_judged_by_its_heartbeat_alone(
        self, store: Store, silent_for: float, dead: tuple[str, ...]
    ) -> None:
        store.executions.start("run")
        with living_process() as (_, process):
            elsewhere = Process(
                host="elsewhere/boot/pid:[1]", process_id=process.process_id, process_started=0.0
            )
        belong_to(store, elsewhere)
        fall_silent(store, silent_for)
        assert elsewhere.gone is False
        assert store.executions.reap_dead_runs(store.checkpoints).dead_runs == dead

    def test_what_dagster_knows_to_be_over_is_dead_and_only_doubtful_runs_are_asked_for(
        self, store: Store
    ) -> None:
        for run_id in ("over", "running", "silent"):
            store.executions.start(run_id)
        store.claim(run_id="over")
        fall_silent(store, run_id="silent")
        asked: list[str] = []

        def over(run_ids: Collection[str]) -> list[str]:
            asked.extend(run_ids)
            return ["over"]

        reaped = store.executions.reap_dead_runs(store.checkpoints, over=over)
        assert asked == ["over", "running"]
        assert (set(reaped.dead_runs), reaped.regions) == ({"over", "silent"}, ("11680",))

    def test_the_runs_of_another_batch_are_not_ours_to_bury(self, store: Store) -> None:
        store.execute(
            "INSERT INTO batch_execution_metadata (batch_name, execution_id) "
            "VALUES ('another', 'theirs')"
        )
        assert store.executions.reap_dead_runs(store.checkpoints).dead_runs == ()

    def test_a_buried_run_is_offered_until_it_was_ended_in_dagster(self, store: Store) -> None:
        store.executions.start("run")
        fall_silent(store)
        store.executions.reap_dead_runs(store.checkpoints)
        assert store.executions.not_ended_in_dagster() == ["run"]
        store.executions.mark_ended_in_dagster(["run"])
        assert store.executions.not_ended_in_dagster() == []
        ended = run_row(store)["dagster_ended_at"]
        assert isinstance(ended, dt.datetime)

    def test_a_process_frozen_in_the_middle_of_storing_holds_nobody_up(self, store: Store) -> None:
        store.executions.start("run")
        store.claim("11680")
        store.claim("11110")
        fall_silent(store)
        with store.database.engine.connect() as frozen:
            frozen.execute(
                text("SELECT FROM batch_checkpoint WHERE region_code = '11680' FOR UPDATE")
            )
            reaped = store.executions.reap_dead_runs(store.checkpoints)
            assert (reaped.dead_runs, reaped.regions) == (("run",), ("11110",))
            frozen.rollback()
        store.execute(
            "UPDATE batch_checkpoint SET lease_expires_at = now() WHERE region_code = '11680'"
        )
        assert store.executions.reap_dead_runs(store.checkpoints).regions == ("11680",)


class TestASession:
    """`RunSession` starts the row, keeps it alive and finishes it; each run enters one, once."""

    def test_its_row_is_alive_while_it_works_and_says_at_the_end_how_it_ended(
        self, store: Store
    ) -> None:
        with RunSession.open(store.executions, "run", heartbeat_seconds=0.05) as session:
            fall_silent(store)
            recent = (
                "SELECT FROM batch_execution_metadata WHERE heartbeat_at > now() - interval '9 s'"
            )
            soon(lambda: bool(store.read(recent)), "a heartbeat")
            assert not store.executions.reap_dead_runs(store.checkpoints).dead_runs
            assert run_row(store)["status"] == "RUNNING"
            session.conclude(Ending.COMPLETED, "all done")
        assert (run_row(store)["status"], run_row(store)["note"]) == ("COMPLETED", "all done")
        assert not session.declared_dead

    @pytest.mark.parametrize(
        ("error", "status", "note"),
        [
            (ValueError("broken"), "FAILED", "broken"),
            (KeyboardInterrupt(), "INTERRUPTED", "stopped"),
            (None, "INTERRUPTED", "stopped"),
        ],
    )
    def test_work_that_does_not_conclude_leaves_a_row_that_is_over(
        self, store: Store, error: BaseException | None, status: str, note: str
    ) -> None:
        with (
            suppress(ValueError, KeyboardInterrupt),
            RunSession.open(store.executions, "run", heartbeat_seconds=5),
        ):
            if error is not None:
                raise error
        assert (run_row(store)["status"], run_row(store)["note"]) == (status, note)

    def test_a_session_that_was_declared_dead_cancels_its_work(self, store: Store) -> None:
        with RunSession.open(store.executions, "run", heartbeat_seconds=0.05) as session:
            store.executions.declare_dead("run", store.checkpoints)
            soon(session.cancellation.is_cancelled, "its next heartbeat finds out")
            session.conclude(Ending.COMPLETED, None)
        assert session.declared_dead
        assert isinstance(session.error, StopRequested)
        assert run_row(store)["status"] == "INTERRUPTED"
