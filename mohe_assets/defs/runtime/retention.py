"""Delete old searches of the ledger, and old runs of Dagster with their events, which Dagster
itself never deletes.
"""

import datetime as dt
import logging
from dataclasses import dataclass

import dagster as dg
from sqlalchemy import text

from mohe_assets.app import App
from mohe_assets.defs.runtime.dagster_internals import (
    BACKFILL_ID_TAG,
    FINISHED_STATUSES,
    SqlEventLogStorage,
)
from mohe_assets.defs.runtime.runs import UNFINISHED_BACKFILLS
from mohe_assets.domain.kst import to_minute

log = logging.getLogger(__name__)

# Runs read at a time.
RUNS_AT_ONCE = 200
# The UI shows a partition by its latest events of each type, and by the status of their runs; an
# asset check by its latest execution.
SHOWN_RUNS = text("""
SELECT run_id FROM event_logs WHERE id IN (
    SELECT max(id) FROM event_logs WHERE asset_key IS NOT NULL
     GROUP BY asset_key, partition, dagster_event_type)
UNION SELECT run_id FROM asset_check_executions WHERE id IN (
    SELECT max(id) FROM asset_check_executions GROUP BY asset_key, check_name)
UNION SELECT last_run_id FROM asset_keys WHERE last_run_id IS NOT NULL
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """Numbers of deleted rows. `begins_at` is set while it is too early to delete."""

    searches: int
    runs: int
    begins_at: dt.datetime | None


def prune(instance: dg.DagsterInstance, app: App, *, dry_run: bool = False) -> Pruned:
    """Delete data that is older than the settings allow; measure the databases.

    It can run, and be killed, at any time: it deletes in small transactions.
    """
    settings, retention, now = app.settings, app.retention, dt.datetime.now(dt.UTC)
    if not dry_run:
        app.note_sizes()
    begins_at = retention.begins_at()
    if begins_at > now and not dry_run:
        return Pruned(searches=0, runs=0, begins_at=begins_at)
    searches = runs = 0
    if days := settings.keep_ledger_days:
        delete = retention.expired_searches if dry_run else retention.delete_searches
        searches = delete(days)
    if days := settings.keep_run_days:
        for run_id in _unneeded_runs(instance, now - dt.timedelta(days=days)):
            runs += 1
            if not dry_run:
                instance.delete_run(run_id)
                instance.compute_log_manager.delete_logs(prefix=[run_id])
    return Pruned(searches=searches, runs=runs, begins_at=begins_at if begins_at > now else None)


def pruned_sentence(pruned: Pruned, *, dry_run: bool = False) -> str:
    """Return the result as a sentence for the log and the terminal."""
    if pruned.begins_at is not None and not dry_run:
        return f"Nothing is deleted before {to_minute(pruned.begins_at)}, a day after the upgrade."
    are = "would be" if dry_run else "are"
    text = f"{pruned.searches:,} searches of old rounds and {pruned.runs:,} old runs {are} deleted."
    return (
        f"{text} Not before {to_minute(pruned.begins_at)}."
        if pruned.begins_at is not None
        else text
    )


def _unneeded_runs(instance: dg.DagsterInstance, before: dt.datetime) -> list[str]:
    """Return finished runs, last changed before this time, that no page or backfill needs."""
    events = instance.event_log_storage
    if not isinstance(events, SqlEventLogStorage):
        log.warning("Dagster's storage is not an SQL database: no run is deleted.")
        return []
    with events.index_connection() as connection:
        kept = {row[0] for row in connection.execute(SHOWN_RUNS)}
    backfills = {
        backfill.backfill_id
        for status in UNFINISHED_BACKFILLS
        for backfill in instance.get_backfills(status=status)
    }
    filters = dg.RunsFilter(statuses=list(FINISHED_STATUSES), updated_before=before)
    unneeded, cursor = list[str](), None
    while found := instance.get_runs(filters, cursor=cursor, limit=RUNS_AT_ONCE, ascending=True):
        cursor = found[-1].run_id
        unneeded += [
            run.run_id
            for run in found
            if run.run_id not in kept and run.tags.get(BACKFILL_ID_TAG) not in backfills
        ]
    return unneeded
