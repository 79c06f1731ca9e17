"""Metrics for Prometheus: each scrape reads the database once; labels have few values."""

import datetime as dt
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mohe_assets.app import App
from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.store.api_state import ApiState
from mohe_assets.store.reads.monitoring import (
    Monitored,
    Refusals,
    Totals,
    read_monitored,
    read_refusals,
)

log = logging.getLogger(__name__)

# Limit for reaching the database. Prometheus ends a scrape after ten seconds by default.
RECONNECT_SECONDS = 2.0
ENDED = ("COMPLETED", "FAILED", "INTERRUPTED")


class CollectionMetrics(Collector):
    """Read the database at each scrape; if it is unavailable, return `mohe_up 0` alone."""

    def __init__(self, app: App) -> None:
        self._app = replace(
            app, database=replace(app.database, reconnect_seconds=RECONNECT_SECONDS)
        )
        self._up = True

    def describe(self) -> Iterable[Metric]:
        """Return nothing, since registering must not need a database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics or only `mohe_up`, never a part."""
        begun = time.monotonic()
        try:
            families = list(self._families())
        except DatabaseUnavailable as error:
            if self._up:
                log.warning("%s", error)
            self._up = False
            yield _gauge("mohe_up", "1 if the database answered this scrape.", 0)
            return
        self._up = True
        yield _gauge("mohe_up", "1 if the database answered this scrape.", 1)
        yield from families
        yield _gauge(
            "mohe_scrape_duration_seconds",
            "Time this scrape took in the database.",
            time.monotonic() - begun,
        )

    def _families(self) -> Iterator[Metric]:
        app, settings = self._app, self._app.settings
        found = read_monitored(
            app.database,
            app.scope,
            lease_seconds=settings.lease_seconds,
        )
        yield from _regions(found)
        yield from _work(found)
        yield from _runs(found)
        state = app.api_state()
        if state is not None:
            account = app.account
            refused = read_refusals(app.database, account.api, account.account)
            yield from _api(account.api, account.calls_per_second, state, refused)


def _regions(found: Monitored) -> Iterator[Metric]:
    totals = found.totals
    yield _by(
        "mohe_regions", "Regions that are collected, by the status of their checkpoint.", "status",
        {name: getattr(totals, name) for name in ("pending", "processing", "completed", "failed")},
    )  # fmt: skip
    yield _gauge(
        "mohe_regions_refining",
        "Regions being searched beyond their base plan; processing, too.",
        totals.refining,
    )
    yield _by(
        "mohe_regions_failed", "Failed regions by what failed them.", "kind", found.failed_by_kind
    )
    yield _gauge(
        "mohe_regions_awaiting_retry",
        "Failed regions that are tried again by themselves.",
        totals.awaiting_retry,
    )
    yield _gauge(
        "mohe_regions_given_up", "Failed regions that only mohe retry tries again.", totals.given_up
    )
    yield _gauge(
        "mohe_regions_lease_expired",
        "Regions held by a run without a recent heartbeat.",
        totals.leases_expired,
    )
    yield from _moment(
        "mohe_next_retry_timestamp_seconds",
        "When the next failed region is due.",
        totals.next_retry_at,
    )
    yield from _moment(
        "mohe_last_completion_timestamp_seconds",
        "When a region was last completed.",
        totals.last_completed_at,
    )
    yield from _moment(
        "mohe_region_list_refresh_timestamp_seconds",
        "When the region list was last taken over.",
        found.refreshed_at,
    )


def _work(found: Monitored) -> Iterator[Metric]:
    totals: Totals = found.totals
    yield _gauge("mohe_places", "Places known.", found.places)
    yield _gauge(
        "mohe_places_without_region",
        "Places whose address names no known region.",
        found.places_without_region,
    )
    yield _gauge(
        "mohe_searches_done",
        "Searches of the base plans stored in the current rounds.",
        totals.searches_done,
    )
    if totals.searches_planned is not None:
        yield _gauge(
            "mohe_searches_planned", "Searches that complete all regions.", totals.searches_planned
        )
    yield _gauge(
        "mohe_refinement_searches_done",
        "Searches beyond the base plans stored in the current rounds.",
        totals.refinements,
    )
    yield _gauge("mohe_calls_used", "Calls spent on the current rounds.", totals.calls_used)
    worked = totals.working_time or dt.timedelta()
    yield _gauge(
        "mohe_working_seconds",
        "Time regions were held in the current rounds, added up.",
        worked.total_seconds(),
    )


def _runs(found: Monitored) -> Iterator[Metric]:
    runs = found.runs
    yield _gauge("mohe_runs_active", "Runs that collect.", runs.by_status.get("RUNNING", 0))
    yield _gauge(
        "mohe_runs_silent",
        "Active runs whose heartbeat is older than the lease: dead, or frozen.",
        runs.silent,
    )
    if runs.oldest_heartbeat_seconds is not None:
        yield _gauge(
            "mohe_runs_oldest_heartbeat_age_seconds",
            "Time since the most silent active run was heard.",
            runs.oldest_heartbeat_seconds,
        )
    ended = CounterMetricFamily(
        "mohe_runs_ended", "Runs that have ended, by how.", labels=["status"]
    )
    for status in ENDED:
        ended.add_metric([status.lower()], runs.by_status.get(status, 0))
    yield ended


def _api(api: str, calls_per_second: float, state: ApiState, refused: Refusals) -> Iterator[Metric]:
    used = {"day": state.used_today, "month": state.used_this_month}
    quotas = {"day": state.daily_quota}
    if state.monthly_quota is not None:
        quotas["month"] = state.monthly_quota
    yield _by(
        "mohe_api_calls",
        "Calls counted against the quota in the current KST day and month.",
        "period",
        used,
        api=api,
    )
    yield _by("mohe_api_quota_calls", "Calls the quota allows.", "period", quotas, api=api)
    refusals = CounterMetricFamily(
        "mohe_api_refused_calls", "Calls the server refused.", labels=["api", "reason"]
    )
    refusals.add_metric([api, "rate"], refused.rate)
    refusals.add_metric([api, "quota"], refused.quota)
    yield refusals
    yield _gauge("mohe_api_open", "1 if calls may be made now.", int(state.open), api=api)
    yield _gauge(
        "mohe_api_blocked",
        "1 if the server refuses these credentials.",
        int(state.blocked_why is not None),
        api=api,
    )
    yield _gauge(
        "mohe_api_quota_closed",
        "1 while a quota is used up.",
        int(state.closed_until is not None),
        api=api,
    )
    yield _gauge("mohe_api_unavailable", "1 while no request gets a usable answer.",
                 int(state.unavailable_since is not None), api=api)  # fmt: skip
    resets = state.closed_until or state.resets_at
    yield _gauge(
        "mohe_api_resets_timestamp_seconds",
        "When there are new calls: the end of the quota that is used up, or of the day.",
        resets.timestamp(),
        api=api,
    )
    yield _gauge(
        "mohe_api_calls_per_second_limit", "The configured rate.", calls_per_second, api=api
    )
    yield _gauge(
        "mohe_api_pace_ratio",
        "Share of the configured rate in use; falls after refusals.",
        refused.pace,
        api=api,
    )


def _gauge(name: str, text: str, value: float, **labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _by(
    name: str, text: str, label: str, values: Mapping[str, int], **labels: str
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[*labels, label])
    for value, count in values.items():
        family.add_metric([*labels.values(), value], count)
    return family


def _moment(name: str, text: str, moment: dt.datetime | None) -> Iterator[GaugeMetricFamily]:
    if moment is not None:
        yield _gauge(name, text, moment.timestamp())
