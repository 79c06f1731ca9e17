"""Correct moments that are too far in the future: the database's clock was ahead when they were
written, or it is behind now.
"""

import logging
from dataclasses import dataclass

from mohe_assets.store.api_calls import LAST_PROBE_SECONDS
from mohe_assets.store.checkpoints import RETRY_CAP_SECONDS
from mohe_assets.store.database import Database, rows, statement

log = logging.getLogger(__name__)

# Between two readings of one clock; and of a moment that a statement wrote at its end.
TOLERANCE_SECONDS = 5.0
# Most calls that may wait at a time, and their slowest pace: no slot is further ahead than these.
MOST_WAITING = 1_000

_NOW = "clock_timestamp()"
_TOLERANCE = f"interval '{TOLERANCE_SECONDS} seconds'"
_LEASE = "make_interval(secs => :lease_seconds)"
_SLOTS = "make_interval(secs => greatest(60, :most_waiting / (:calls_per_second * pace)))"
# A day's quota ends at the next midnight, a month's at the end of the month.
_RESET = """greatest(budget_midnight(budget_day(budget_clock()) + 1),
    CASE WHEN :has_month
         THEN budget_midnight((date_trunc('month', budget_day(budget_clock()))
                               + interval '1 month')::date) END)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """Rows of `table` are wrong where `wrong`; `right` puts them right."""

    what: str
    table: str
    wrong: str
    right: str


def _not_after_now(column: str, table: str, what: str, *, clock: str = _NOW) -> _Rule:
    """A moment in the past by its nature."""
    return _Rule(
        what=what,
        table=table,
        wrong=f"{column} > {clock} + {_TOLERANCE}",
        right=f"{column} = {clock}",
    )


_BUDGET = "budget_clock()"
RULES = (
    _Rule(
        what="the turn of the next call",
        table="api_budget",
        wrong=f"next_slot_at > {_BUDGET} + {_SLOTS} + {_TOLERANCE}",
        right=f"next_slot_at = {_BUDGET}",
    ),
    _Rule(
        what="the end of a used-up quota",
        table="api_budget",
        wrong=f"exhausted_until > {_RESET} + interval '1 minute' + {_TOLERANCE}",
        right=f"exhausted_until = {_RESET}",
    ),
    _Rule(
        what="the next probe of an unavailable API",
        table="api_budget",
        wrong=f"next_probe_at > {_BUDGET} + interval '{LAST_PROBE_SECONDS} seconds' + {_TOLERANCE}",
        right=f"next_probe_at = {_BUDGET}",
    ),
    _not_after_now("probing_since", "api_budget", "the start of a probe", clock=_BUDGET),
    _not_after_now("paced_at", "api_budget", "the last slowing down", clock=_BUDGET),
    _not_after_now("refused_since", "api_budget", "the first refusal", clock=_BUDGET),
    _Rule(
        what="the lease of a region",
        table="batch_checkpoint",
        wrong=f"status = 'PROCESSING' AND lease_expires_at > {_NOW} + {_LEASE} + {_TOLERANCE}",
        right=f"lease_expires_at = {_NOW} + {_LEASE}",
    ),
    # `end_time` was written with it, and shows how far the clock was ahead.
    _Rule(
        what="the next try of a failed region",
        table="batch_checkpoint",
        wrong=f"retry_at > {_NOW} AND (end_time > {_NOW} + {_TOLERANCE}"
        f" OR retry_at > {_NOW} + interval '{RETRY_CAP_SECONDS} seconds' + {_TOLERANCE})",
        right=f"retry_at = retry_at - greatest(end_time - {_NOW}, retry_at - {_NOW}"
        f" - interval '{RETRY_CAP_SECONDS} seconds'), end_time = least(end_time, {_NOW})",
    ),
    _not_after_now("heartbeat_at", "batch_execution_metadata", "the heartbeat of a run"),
    _not_after_now("refreshed_at", "region_refresh", "the last refresh of the region list"),
)
LOOK = "SELECT " + ", ".join(
    f"(SELECT count(*) FROM {rule.table} WHERE {rule.wrong}) AS rule_{number}"
    for number, rule in enumerate(RULES)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClockErrors:
    """Number of impossible moments of each kind."""

    found: dict[str, int]

    def __bool__(self) -> bool:
        return bool(self.found)

    @property
    def sentence(self) -> str:
        """State and cause."""
        named = ", ".join(f"{what} ({count})" for what, count in self.found.items())
        return (
            f"Further in the future than possible: {named}. The database's clock was ahead when "
            "they were written, or is behind now."
        )


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The moments that decide when waiting work continues, in one database."""

    database: Database
    lease_seconds: float
    calls_per_second: float
    has_month: bool

    def look(self) -> ClockErrors:
        """Return the impossible moments; change nothing."""
        found = self.database.transaction(lambda c: rows(c, LOOK, **self._values))[0]
        return _errors([found[f"rule_{number}"] for number in range(len(RULES))])

    def pull_back(self) -> ClockErrors:
        """Correct the impossible moments, and log it."""
        errors = self.look()
        if not errors:
            return errors

        def apply(rule: _Rule) -> int:
            sql = statement(f"UPDATE {rule.table} SET {rule.right} WHERE {rule.wrong}")
            return self.database.transaction(
                lambda connection: connection.execute(sql, self._values).rowcount
            )

        # A transaction each: none waits for a row while it holds another.
        pulled = _errors([apply(rule) for rule in RULES])
        if pulled:
            log.warning("%s They are pulled back.", pulled.sentence)
        return pulled

    @property
    def _values(self) -> dict[str, object]:
        return {
            "lease_seconds": self.lease_seconds,
            "calls_per_second": self.calls_per_second,
            "most_waiting": MOST_WAITING,
            "has_month": self.has_month,
        }


def _errors(counts: list[int]) -> ClockErrors:
    named = zip((rule.what for rule in RULES), counts, strict=True)
    return ClockErrors(found={what: count for what, count in named if count})
