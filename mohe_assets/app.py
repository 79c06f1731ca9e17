"""Build the objects of a collection from the settings, for the command line and Dagster.

An import opens nothing. `App.open()` raises for a missing server, an old schema or a missing key.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module

from mohe_assets.clients.exchange import Timeouts
from mohe_assets.clients.http import LocalRateLimiter, RateLimiter, RetryPolicy
from mohe_assets.clients.region_api import RegionApiClient
from mohe_assets.collection.cancellation import CancellationToken
from mohe_assets.collection.heartbeat import RunSession
from mohe_assets.collection.rate_limiter import SharedRateLimiter
from mohe_assets.collection.region_worker import CachedTallies, RegionWorker, RunLimits
from mohe_assets.collection.run import DATABASE_THREADS, CollectionRun
from mohe_assets.collection.scheduler import ClaimFilter
from mohe_assets.domain.forecast import QuotaState
from mohe_assets.domain.kst import KST
from mohe_assets.domain.regions import REGION_TYPES, build_region_list
from mohe_assets.domain.search_plan import Search, plan_digest
from mohe_assets.errors import DatabaseUnavailable, OriginMismatch, SettingsError
from mohe_assets.logs import about
from mohe_assets.postgres import schema
from mohe_assets.postgres.databases import (
    ignore_redirecting_variables,
    only_look,
    require_current,
    resolve_urls,
    running,
)
from mohe_assets.region_sync import Download, RegionSync, sync_regions
from mohe_assets.replay import replay
from mohe_assets.settings import SIMULATOR_CLIENT_IDS, Settings, classic_ends
from mohe_assets.sources.naver_local.client import CLASSIC, HUB, NaverLocalClient
from mohe_assets.sources.naver_local.plan import base_plan
from mohe_assets.sources.naver_local.source import NaverLocalSource, parse_answer
from mohe_assets.store.api_state import ApiAccount, ApiState, read_state
from mohe_assets.store.checkpoints import Checkpoints
from mohe_assets.store.clock import Clock
from mohe_assets.store.database import ANSWER_SECONDS, Database, Scope
from mohe_assets.store.executions import Executions
from mohe_assets.store.hand_edits import HandEdits, read_hand_edits
from mohe_assets.store.ledger import Ledger
from mohe_assets.store.origin import DataOrigin, Mismatch, Origin, forget_simulated, mismatch
from mohe_assets.store.reads.overview import Overview, RemainingWork, read_overview, remaining_work
from mohe_assets.store.reads.progress import record_plan
from mohe_assets.store.refinement import Refinement
from mohe_assets.store.region_lifecycle import CachedIndex, Lifecycle
from mohe_assets.store.regions import Regions
from mohe_assets.store.replay import Replayed, Replays
from mohe_assets.store.retention import DatabaseSize, Retention, measured_bytes

log = logging.getLogger(__name__)

REGION_CALLS_PER_SECOND = 25.0  # the government's limit is 30
ONE_TRY = RetryPolicy(attempts=1, rate_attempts=1)


@dataclass(frozen=True, kw_only=True)
class App:
    """Settings, an open database, and the objects built from them."""

    settings: Settings
    database: Database

    @classmethod
    @contextmanager
    def open(
        cls,
        settings: Settings,
        database: Database | None = None,
        *,
        wait: bool = False,
        looking: bool = False,
    ) -> "Iterator[App]":
        """Check that the database answers and has the current schema.

        The embedded database is made ready first; not when `looking`, which writes nothing.
        `database` replaces the database of the settings. With `wait`, a server outside that
        restarts is waited for as in the middle of a run. Raises SettingsError, DatabaseUnavailable.
        """
        urls = only_look(settings) if looking else running(settings)
        with cls.attached(settings, database) as app:
            if wait and urls.embedded is None:
                app.database.wait()
            if looking:
                schema.require_current(app.database)
            else:
                require_current(app.database, settings, urls)
            yield app

    @classmethod
    @contextmanager
    def attached(cls, settings: Settings, database: Database | None = None) -> "Iterator[App]":
        """Open the database without using it, for callers that start while it is down. Raises
        SettingsError.
        """
        if settings.checkpoint_region_type not in REGION_TYPES:
            raise SettingsError(
                f"CHECKPOINT_REGION_TYPE is {settings.checkpoint_region_type!r}; "
                f"allowed are {' and '.join(REGION_TYPES)}."
            )
        urls = resolve_urls(settings)
        ignore_redirecting_variables(urls)
        # One more each for the heartbeat and the caller.
        database = database or Database.connect(urls.data, pool_size=DATABASE_THREADS + 2)
        try:
            yield cls(settings=settings, database=database)
        finally:
            database.close()

    @property
    def scope(self) -> Scope:
        settings = self.settings
        return Scope(
            batch_name=settings.checkpoint_batch_name, region_type=settings.checkpoint_region_type
        )

    @property
    def checkpoints(self) -> Checkpoints:
        settings = self.settings
        return Checkpoints(
            database=self.database,
            scope=self.scope,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
            backoff_seconds=settings.retry_seconds,
        )

    @property
    def executions(self) -> Executions:
        return Executions(
            database=self.database,
            scope=self.scope,
            lease_seconds=self.settings.lease_seconds,
        )

    @property
    def refinement(self) -> Refinement:
        return Refinement(
            checkpoints=self.checkpoints, calls_per_region=self.settings.max_calls_per_region
        )

    @property
    def regions(self) -> Regions:
        return Regions(database=self.database, region_type=self.settings.checkpoint_region_type)

    @property
    def lifecycle(self) -> Lifecycle:
        return Lifecycle(database=self.database, region_type=self.settings.checkpoint_region_type)

    @property
    def clock(self) -> Clock:
        settings = self.settings
        return Clock(
            database=self.database,
            lease_seconds=settings.lease_seconds,
            calls_per_second=settings.calls_per_second,
            has_month=settings.uses_hub,
        )

    @property
    def retention(self) -> Retention:
        return Retention(database=self.database)

    @contextmanager
    def _dagster_database(self) -> "Iterator[Database | None]":
        """Dagster's database; None if it is ours, too."""
        urls = resolve_urls(self.settings)
        if urls.dagster == urls.data:
            yield None
            return
        database = Database.connect(urls.dagster, reconnect_seconds=0)
        try:
            yield database
        finally:
            database.close()

    def note_sizes(self) -> None:
        """Measure both databases."""
        self.retention.note_size("data", self.database)
        with self._dagster_database() as dagster:
            if dagster is not None:
                self.retention.note_size("dagster", dagster)

    def database_sizes(self) -> tuple[DatabaseSize, ...]:
        """Return the size of both databases, or of one that has the tables of both."""
        data = self.retention.size("data", measured_bytes(self.database))
        with self._dagster_database() as dagster:
            if dagster is None:
                return (data,)
            try:
                measured = measured_bytes(dagster)
            except DatabaseUnavailable:
                measured = None
        return (data, self.retention.size("dagster", measured))

    @property
    def account(self) -> ApiAccount:
        """The account whose calls are counted: HUB's if its keys are set, else classic."""
        settings = self.settings
        client_id, client_secret = self._naver_keys()
        return ApiAccount.of(
            HUB.api if settings.uses_hub else CLASSIC.api,
            client_id,
            client_secret,
            rate=settings.calls_per_second,
            daily=settings.daily_quota,
            monthly=settings.monthly_quota if settings.uses_hub else None,
            url=self._place_url,
        )

    @property
    def _place_url(self) -> str:
        settings = self.settings
        return settings.naver_hub_url if settings.uses_hub else settings.naver_api_url

    def _naver_keys(self) -> tuple[str, str]:
        settings = self.settings
        settings.require_place_keys()
        if settings.ncp_apigw_api_key_id is not None and settings.ncp_apigw_api_key is not None:
            return (
                settings.ncp_apigw_api_key_id.get_secret_value(),
                settings.ncp_apigw_api_key.get_secret_value(),
            )
        if settings.naver_client_id is not None and settings.naver_client_secret is not None:
            return (
                settings.naver_client_id.get_secret_value(),
                settings.naver_client_secret.get_secret_value(),
            )
        raise AssertionError("require_place_keys requires a pair of keys")

    @property
    def data_origin(self) -> DataOrigin:
        return DataOrigin(database=self.database)

    @property
    def keys_origin(self) -> Origin:
        """The origin of the keys: the simulator or a real API; NONE without keys."""
        simulated = self.settings.simulated
        return Origin.NONE if simulated is None else Origin.SIMULATOR if simulated else Origin.API

    @property
    def place(self) -> str:
        """The database's name for messages."""
        embedded = resolve_urls(self.settings).embedded
        return (
            f"the embedded PostgreSQL of {self.settings.home}" if embedded else self.database.where
        )

    def origin_mismatch(self) -> Mismatch | None:
        """Return the reason these keys must not be used with this database's data, or None."""
        data, keys = self.data_origin.places(), self.keys_origin
        return (
            mismatch(data, self.place) if Origin.NONE not in (data, keys) and data != keys else None
        )

    def require_same_origin(self) -> None:
        """Raise OriginMismatch where data and keys do not both belong to the simulator or a real
        API.
        """
        if reason := self.origin_mismatch():
            raise OriginMismatch(str(reason))

    def begin_simulated_day(self) -> None:
        """Reset the calls of a simulator that was just started. Raises OriginMismatch."""
        self.require_same_origin()
        self.data_origin.clear_simulator_counters()

    def refresh_regions(self, *, accept_any_change: bool = False) -> RegionSync:
        """Download the region list and take it over, see `sync_regions`. Raises OriginMismatch."""
        self.settings.require_government_key()
        self.require_same_origin()

        def download() -> Download:
            downloaded = region_client(self.settings).download()
            rows = ((row.region_cd, row.locatadd_nm) for row in downloaded.rows)
            today = dt.datetime.now(KST).date()
            region_type = self.settings.checkpoint_region_type
            listed = build_region_list(rows, as_of=today, source="api", region_type=region_type)
            return Download(listed=listed, calls=downloaded.calls)

        sync = sync_regions(
            download=download,
            regions=self.regions,
            checkpoints=self.checkpoints,
            # Nothing was collected by the list of the other origin, so nothing is lost with it.
            accept_any_change=accept_any_change or self._list_is_the_others(),
        )
        self.data_origin.note_regions(self.keys_origin)
        return sync

    def _list_is_the_others(self) -> bool:
        return {self.data_origin.regions(), self.keys_origin} == {Origin.SIMULATOR, Origin.API}

    def list_is_missing(self) -> bool:
        """Return whether there is no usable list: none yet, deleted, or the simulator's with real
        keys.
        """
        if self.regions.last_refresh() is None or not self.regions.leaf_names():
            return True
        return self._list_is_the_others()

    def refresh_is_due(self) -> bool:
        """Return whether the region list needs a refresh.

        It is missing, bundled, older than MOHE_REGION_REFRESH_DAYS, edited by hand, or was not
        accepted on an earlier day.
        """
        last = self.regions.last_refresh(
            due_after_seconds=self.settings.region_refresh_days * 86_400
        )
        if last is None or last.old or last.source != "api" or self.list_is_missing():
            return True
        if self.hand_edits().list_is_incomplete:
            return True
        unconfirmed = self.regions.unconfirmed()
        return unconfirmed is not None and unconfirmed.last_seen_on < dt.datetime.now(KST).date()

    def hand_edits(self) -> HandEdits:
        """Return the rows that were deleted or orphaned by hand."""
        return read_hand_edits(self.database, self.scope)

    def seed_missing(self) -> None:
        """Create missing checkpoints: a person may have deleted them to start again."""
        if seeded := self.checkpoints.seed_missing():
            log.warning(
                "%d regions had no checkpoint: they are PENDING now and are collected again.",
                seeded,
            )

    def reset(self) -> int:
        """As `Checkpoints.reset`; the simulator's data is deleted as a whole, with its call
        counters.
        """
        return self.checkpoints.reset(before=forget_simulated)

    def prepare_batch(self) -> None:
        """Apply the settings that reset a batch or begin a new round. Logs a warning."""
        settings = self.settings
        self.require_same_origin()
        self.seed_missing()
        if settings.batch_auto_initialization:
            emptied = self.checkpoints.reset()
            log.warning(
                "BATCH_AUTO_INITIALIZATION is true: all places, searches and checkpoints "
                "of batch %s are deleted; "
                "%d regions start from nothing.",
                settings.checkpoint_batch_name,
                emptied,
            )
        elif not settings.checkpoint_enabled:
            restarted = self.checkpoints.new_round(also_unfinished=True)
            log.warning(
                "CHECKPOINT_ENABLED is false: no checkpoint is read, "
                "%d regions are collected again from the start.",
                len(restarted),
            )
        else:
            self.reopen_regions_with_old_plan()

    def reopen_regions_with_old_plan(self) -> list[str]:
        """Make regions completed with another list of keywords due again; return their codes."""
        due = self.checkpoints.reopen_outdated(plan_digest(self._any_plan))
        if due:
            log.warning(
                "MOHE_SEARCH_KEYWORDS has changed: %d regions are due for the new searches.",
                len(due),
            )
        return due

    @property
    def _any_plan(self) -> tuple[Search, ...]:
        """The base plan of any region; all plans have the same keywords."""
        return base_plan("", self.settings.search_keywords)

    def remaining_work(self) -> RemainingWork:
        """Return the calls that the collection still needs without failures, regions without a
        checkpoint included.
        """
        settings = self.settings
        left = remaining_work(
            self.database,
            self.scope,
            self._any_plan,
            settings.max_calls_per_region,
        )
        missing, keywords = self.hand_edits().without_checkpoint, len(self._any_plan)
        return replace(
            left,
            regions=left.regions + missing,
            base=left.base + missing * keywords,
            refinement=left.refinement + missing * max(0, settings.max_calls_per_region - keywords),
        )

    def overview(self) -> Overview:
        """Return the figures of the whole collection, with its latest failures and runs."""
        settings = self.settings
        return read_overview(
            self.database,
            self.scope,
            lease_seconds=settings.lease_seconds,
        )

    def api_state(self) -> ApiState | None:
        """Return the API's state; None without keys, unless the data is the simulator's."""
        if self.settings.naver_client_id is not None or self.settings.uses_hub:
            return read_state(self.database, self.account)
        if self.data_origin.places() is not Origin.SIMULATOR:
            return None
        account = ApiAccount.of(
            CLASSIC.api,
            SIMULATOR_CLIENT_IDS[0],
            "",
            rate=1,
            daily=self.settings.daily_quota,
            monthly=None,
        )
        return read_state(self.database, account)

    def quota_state(self, state: ApiState | None) -> QuotaState:
        """Return what the API in this state allows from now on; whole quotas without keys."""
        settings = self.settings
        left = settings.daily_quota if state is None else state.daily_quota - state.used_today
        month = state.monthly_quota if state else None
        return QuotaState(
            left_today=0 if state and state.closed_until else max(0, left),
            daily_quota=settings.daily_quota,
            calls_per_second=settings.calls_per_second,
            left_month=max(0, month - state.used_this_month)
            if state and month is not None
            else None,
            monthly_quota=month,
        )

    def replay(self, *, dry_run: bool = False) -> Replayed:
        """Rebuild places from the ledger's answers, or count the differences. Raises ReplayRefused,
        OriginMismatch.
        """
        self.require_same_origin()
        replays = Replays(checkpoints=self.checkpoints, source=NaverLocalSource.name)
        return replay(replays, self.lifecycle.index(), parse_answer, dry_run=dry_run)

    @staticmethod
    def load_what_collects(*, refining: bool = False) -> None:
        """Import modules that most commands do not need: an import during a collection delays all
        searches.
        """
        import_module("mohe_assets.clients.connections")
        if refining:
            import_module("numpy")

    @contextmanager
    def session(self, run_id: str) -> Iterator[RunSession]:
        """Open a run's row and heartbeat for everything the run does."""
        heartbeat_seconds = self.settings.heartbeat_seconds
        with (
            about(batch=self.settings.checkpoint_batch_name, run_id=run_id),
            RunSession.open(
                self._answered.executions, run_id, heartbeat_seconds=heartbeat_seconds
            ) as session,
        ):
            session.with_each_beat.append(self._answered.clock.pull_back)
            yield session

    @contextmanager
    def collection(
        self, run_id: str, claim_filter: ClaimFilter, *, total: int = 0
    ) -> Iterator[CollectionRun]:
        """Open a session and return its collection, ready to start."""
        with self.session(run_id) as session:
            yield self.collection_in(session, claim_filter, total=total)

    @property
    def _answered(self) -> "App":
        """This app with a time limit for answers of the database."""
        return replace(self, database=replace(self.database, answer_seconds=ANSWER_SECONDS))

    def collection_in(
        self, session: RunSession, claim_filter: ClaimFilter, *, total: int = 0
    ) -> CollectionRun:
        """Return a collection of this session, ready to start."""
        settings = self.settings
        settings.require_collection_keys()
        self.data_origin.claim(self.keys_origin, session.run_id)
        self.seed_missing()
        if warning := classic_ends(dt.datetime.now(KST), settings.uses_hub):
            log.warning("%s", warning)
        record_plan(
            self.database,
            self.scope,
            self._any_plan,
        )
        answered = self._answered
        work = answered._region_worker(session, probe_now=claim_filter.probe_now)  # noqa: SLF001
        return CollectionRun(claim_filter=claim_filter, work=work, session=session, total=total)

    def _region_worker(self, session: RunSession, *, probe_now: bool) -> RegionWorker:
        run_id, cancellation = session.run_id, session.cancellation
        rate_limiter = SharedRateLimiter(
            database=self.database,
            account=self.account,
            cancellation=cancellation,
            lease_clock=session.lease_clock,
            probe_now=probe_now,
        )
        pause = partial(cancellation.pause, reason="Stopped while waiting to try a call again.")
        source = self._place_source(rate_limiter, RetryPolicy(sleep=pause))
        checkpoints = self.checkpoints
        ledger = Ledger(checkpoints=checkpoints, source=source.name, run_id=run_id)

        async def close() -> None:
            await source.client.close()
            await rate_limiter.close()

        return RegionWorker(
            run_id=run_id,
            limits=RunLimits(
                in_flight=self.settings.searches_in_flight,
                calls_per_region=self.settings.max_calls_per_region,
            ),
            source=source,
            index=CachedIndex(self.lifecycle),
            dongs=self.regions.dongs,
            checkpoints=checkpoints,
            refinement=self.refinement,
            executions=self.executions,
            ledger=ledger,
            health=rate_limiter,
            tallies=CachedTallies(ledger=ledger),
            cancellation=cancellation,
            close=close,
        )

    def try_place_keys(self) -> None:
        """Make a call, reserved like any other. Raises its ApiError, which the rate limiter has
        recorded.
        """

        async def attempt() -> None:
            rate_limiter = SharedRateLimiter(
                database=self.database,
                account=self.account,
                cancellation=CancellationToken(),
                probe_now=True,
            )
            try:
                source = self._place_source(rate_limiter, ONE_TRY)
                async with source.client:
                    await source.perform(source.probe_search(without=""))
            finally:
                await rate_limiter.close()

        asyncio.run(attempt())

    def _place_source(self, rate_limiter: RateLimiter, retry: RetryPolicy) -> NaverLocalSource:
        settings = self.settings
        client_id, client_secret = self._naver_keys()
        client = NaverLocalClient(
            base_url=self._place_url,
            api_version=HUB if settings.uses_hub else CLASSIC,
            client_id=client_id,
            client_secret=client_secret,
            rate_limiter=rate_limiter,
            retry=retry,
            timeouts=Timeouts(
                connect=min(5.0, settings.http_timeout_seconds),
                read=settings.http_timeout_seconds,
                total=settings.http_timeout_seconds,
            ),
        )
        return NaverLocalSource(client=client, keywords=settings.search_keywords)


def region_client(settings: Settings, *, retry: RetryPolicy | None = None) -> RegionApiClient:
    """Return the client of the region list; it needs no database. Raises SettingsError without a
    key.
    """
    return RegionApiClient(
        base_url=settings.government_api_url,
        service_key=settings.require_government_key(),
        rate_limiter=LocalRateLimiter(calls_per_second=REGION_CALLS_PER_SECOND),
        retry=retry,
    )
