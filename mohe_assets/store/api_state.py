"""State of an API as the shared rate limiter has it, for commands and reports. Calls:
api_calls.py.
"""

import base64
import datetime as dt
import hashlib
import os
from dataclasses import dataclass, field
from functools import lru_cache

from mohe_assets.domain.kst import to_minute
from mohe_assets.store.database import Database, rows, statement

UNBLOCK = """
UPDATE api_budget SET blocked = NULL, blocked_at = NULL, blocked_why = NULL,
       next_probe_at = CASE WHEN unavailable_since IS NOT NULL THEN budget_clock() END
 WHERE api = :api AND (blocked IS NOT NULL OR unavailable_since IS NOT NULL)
"""
STATE = """
SELECT b.blocked AS blocked_salt, b.blocked_why,
       CASE WHEN b.unavailable_for = :service THEN b.unavailable_since END AS unavailable_since,
       b.unavailable_reason,
       b.next_probe_at,
       coalesce(b.next_probe_at NOT BETWEEN budget_clock() AND budget_clock() + interval '1 hour',
                true)
           AS probe_is_due,  -- a moment that is further away was written by a wrong clock
       CASE WHEN b.exhausted_until > budget_clock() THEN b.exhausted_until END AS exhausted_until,
       b.exhausted_why,
       coalesce(u.reserved - u.refused_rate - u.refused_quota, 0) AS used_today,
       coalesce(u.refused_rate, 0) AS refused_rate, coalesce(u.refused_quota, 0) AS refused_quota,
       budget_midnight(budget_day(budget_clock()) + 1) AS resets_at,
       (SELECT coalesce(sum(m.reserved - m.refused_rate - m.refused_quota), 0)::int
          FROM account_usage(me.api, me.account) m
         WHERE m.day >= date_trunc('month', budget_day(budget_clock()))::date) AS used_this_month,
       budget_midnight((date_trunc('month', budget_day(budget_clock()))
                        + interval '1 month')::date) AS month_resets_at
  FROM (SELECT CAST(:api AS text) AS api, CAST(:account AS text) AS account) me
  LEFT JOIN LATERAL account_budget(me.api, me.account) b ON true
  LEFT JOIN LATERAL account_usage(me.api, me.account) u ON u.day = budget_day(budget_clock())
"""
ARE_REFUSED = "SELECT are_refused(:api, :account, :digest) AS refused"

# Readers of the table can try secrets against a digest: each try of a refused one takes 16 MB and
# tens of milliseconds. It is computed after a refusal, and while a refusal stands.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 24}
_SCRYPT_MARK = "scrypt"


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiAccount:
    """The account whose calls are counted. Neither client id nor secret is ever stored.

    `account` is a digest of the client id. `credentials` has four hexadecimal digits, enough to
    notice changed credentials and too few to search for the secret. `service` identifies the
    address and these credentials, so that an unavailable API is not taken for another; it is made
    from the four digits, and adds nothing about the secret.
    """

    api: str
    account: str
    credentials: str
    service: str
    secret: str = field(repr=False)
    calls_per_second: float
    daily_quota: int
    monthly_quota: int | None = None

    @classmethod
    def of(
        cls,
        api: str,
        client_id: str,
        client_secret: str,
        *,
        rate: float,
        daily: int,
        monthly: int | None,
        url: str = "",
    ) -> "ApiAccount":
        credentials = _digest(api, client_id, client_secret)[:4]
        return cls(
            api=api,
            account=_digest(api, client_id),
            credentials=credentials,
            service=_digest(api, credentials, url)[:8],
            secret=f"{client_id}\0{client_secret}",
            calls_per_second=rate,
            daily_quota=daily,
            monthly_quota=monthly,
        )

    @property
    def key(self) -> dict[str, object]:
        return {
            "api": self.api,
            "account": self.account,
            "credentials": self.credentials,
            "service": self.service,
        }

    def refused_digest(self, salt: str | None = None) -> str:
        """Return what is stored of refused credentials, as scrypt$salt$digest; without `salt` a new
        one is made.
        """
        return _slow_digest(self.api, self.secret, salt or _base64(os.urandom(12)))

    def are_refused(self, stored: str) -> bool:
        """Return whether these credentials are the refused ones."""
        mark, _, rest = stored.partition("$")
        return mark == _SCRYPT_MARK and stored == self.refused_digest(rest.partition("$")[0])


def unavailable_sentence(
    api: str, since: dt.datetime, reason: str, next_probe_at: dt.datetime | None
) -> str:
    """Return state, cause and next step, for notes, logs and status."""
    probe = f" The next probe is due {to_minute(next_probe_at)}." if next_probe_at else ""
    return f"{api} is unavailable since {to_minute(since)}: {reason.rstrip('.')}.{probe}"


@lru_cache(maxsize=16)
def _slow_digest(api: str, secret: str, salt: str) -> str:
    password = f"mohe-assets\0{api}\0{secret}".encode()
    return (
        f"{_SCRYPT_MARK}${salt}${_base64(hashlib.scrypt(password, salt=salt.encode(), **_SCRYPT))}"
    )


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(("mohe-assets", *parts)).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiState:
    """What an API allows at this moment. `closed_until` is set while a quota is used up, by our
    count or theirs.

    `monthly_quota` is None for an API that has none.
    """

    used_today: int
    daily_quota: int
    used_this_month: int
    monthly_quota: int | None
    refused_rate: int
    refused_quota: int
    resets_at: dt.datetime
    blocked_why: str | None
    closed_until: dt.datetime | None
    closed_why: str | None
    unavailable_since: dt.datetime | None = None
    unavailable_reason: str | None = None
    next_probe_at: dt.datetime | None = None
    probe_is_due: bool = False

    @property
    def open(self) -> bool:
        closed = (self.blocked_why, self.closed_until, self.unavailable_since)
        return all(one is None for one in closed)

    @property
    def used_up(self) -> bool:
        """By our own count, of the day or of the month."""
        month_is = self.monthly_quota is not None and self.used_this_month >= self.monthly_quota
        return month_is or self.used_today >= self.daily_quota


def read_state(database: Database, account: ApiAccount) -> ApiState:
    """Return the state for sensor, status and report; reserve nothing."""
    row = database.transaction(lambda connection: rows(connection, STATE, **account.key))[0]
    blocked_why = (
        row["blocked_why"] if _are_refused(database, account, row["blocked_salt"]) else None
    )
    closed_until, closed_why = row["exhausted_until"], row["exhausted_why"]
    # In the order in which a reservation meets them.
    if (
        closed_until is None
        and account.monthly_quota is not None
        and row["used_this_month"] >= account.monthly_quota
    ):
        closed_until, closed_why = (
            row["month_resets_at"],
            f"the month's {account.monthly_quota} calls are used",
        )
    if closed_until is None and row["used_today"] >= account.daily_quota:
        closed_until, closed_why = (
            row["resets_at"],
            f"the day's {account.daily_quota} calls are used",
        )
    return ApiState(
        used_today=row["used_today"],
        daily_quota=account.daily_quota,
        used_this_month=row["used_this_month"],
        monthly_quota=account.monthly_quota,
        refused_rate=row["refused_rate"],
        refused_quota=row["refused_quota"],
        resets_at=row["resets_at"],
        blocked_why=blocked_why,
        closed_until=closed_until,
        closed_why=closed_why if closed_until else None,
        unavailable_since=row["unavailable_since"],
        unavailable_reason=row["unavailable_reason"] if row["unavailable_since"] else None,
        next_probe_at=row["next_probe_at"] if row["unavailable_since"] else None,
        probe_is_due=bool(row["unavailable_since"] and row["probe_is_due"]),
    )


def _are_refused(database: Database, account: ApiAccount, blocked_salt: str | None) -> bool:
    if blocked_salt is None:
        return False
    digest = account.refused_digest(blocked_salt.removeprefix(f"{_SCRYPT_MARK}$").removesuffix("$"))
    key = {"api": account.api, "account": account.account, "digest": digest}
    found = database.transaction(lambda connection: rows(connection, ARE_REFUSED, **key))
    return bool(found[0]["refused"])


def unblock(database: Database, api: str) -> int:
    """Retry refused credentials because a person reports that they work; return how many accounts
    were blocked.
    """
    return database.transaction(
        lambda connection: connection.execute(statement(UNBLOCK), {"api": api}).rowcount
    )
