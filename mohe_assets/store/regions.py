"""The tables region, legal_dong and region_refresh: a new list is taken over in one transaction, or
not at all.
"""

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, text

from mohe_assets.domain.regions import Region, RegionChanges, RegionList, fingerprint
from mohe_assets.domain.succession import Disbelief
from mohe_assets.store.database import Database, rows

# partition_key is kept for a generation: Dagster identifies the region by it. A region that becomes
# a leaf begins a new one, see sql/005.
_REACTIVATED = "(excluded.is_leaf AND NOT (known.is_leaf AND known.status = 'ACTIVE'))"
UPSERT_REGIONS = f"""
INSERT INTO region AS known (region_type, region_code, region_name, sido_name, sigungu_name,
                             parent_code, is_leaf,
                             partition_key, source, as_of, life)
SELECT :type, r.code, r.name, r.sido, r.sigungu, r.parent, r.leaf, r.key, :source, :as_of,
       CAST(r.leaf AS integer)
  FROM unnest(CAST(:codes AS text[]), CAST(:names AS text[]), CAST(:sidos AS text[]),
              CAST(:sigungus AS text[]),
              CAST(:parents AS text[]), CAST(:leaves AS boolean[]), CAST(:keys AS text[]))
       AS r (code, name, sido, sigungu, parent, leaf, key)
ON CONFLICT (region_type, region_code) DO UPDATE
   SET region_name = excluded.region_name, sido_name = excluded.sido_name,
       sigungu_name = excluded.sigungu_name,
       parent_code = excluded.parent_code, is_leaf = excluded.is_leaf, source = excluded.source,
       as_of = excluded.as_of,
       life = known.life + CAST({_REACTIVATED} AS integer),
       partition_key = CASE WHEN NOT {_REACTIVATED} THEN known.partition_key WHEN known.life = 0
           THEN excluded.partition_key
                            ELSE excluded.partition_key || '_' || (known.life + 1) END,
       status = 'ACTIVE', abolished_at = NULL
"""
ABOLISH_REGIONS = """
UPDATE region SET status = 'ABOLISHED', abolished_at = now()
 WHERE region_type = :type AND status = 'ACTIVE' AND NOT region_code = ANY(CAST(:codes AS text[]))
"""
UPSERT_DONGS = """
INSERT INTO legal_dong AS known (region_type, region_code, dong_name, dong_code)
SELECT :type, d.* FROM unnest(CAST(:codes AS text[]), CAST(:names AS text[]),
                              CAST(:dong_codes AS text[])) AS d
ON CONFLICT (region_type, region_code, dong_name) DO UPDATE
   SET dong_code = coalesce(excluded.dong_code, known.dong_code), status = 'ACTIVE',
       abolished_at = NULL
 WHERE (known.dong_code, known.status) IS DISTINCT
  FROM (coalesce(excluded.dong_code, known.dong_code), 'ACTIVE')
"""
# NOT IN is a hashed lookup whatever the planner believes. As NOT EXISTS it is a join, and
# PostgreSQL 15 joins a table that was just filled, of which it has no statistics, row by row: 18 to
# 60 s instead of 0.1 s.
ABOLISH_DONGS = """
UPDATE legal_dong SET status = 'ABOLISHED', abolished_at = now()
 WHERE region_type = :type AND status = 'ACTIVE'
   AND (region_code, dong_name) NOT IN (SELECT *
                                        FROM unnest(CAST(:codes AS text[]), CAST(:names AS text[])))
"""
NOTE_REFRESH = """
INSERT INTO region_refresh (region_type, source, as_of, rows_read, calls, added, abolished, note)
VALUES (:type, :source, :as_of, :rows_read, :calls, :added, :abolished, :note)
"""
REGIONS = """
SELECT region_code, region_name, sido_name, sigungu_name, parent_code, is_leaf, partition_key
  FROM region WHERE region_type = :type AND status = 'ACTIVE' ORDER BY region_code
"""
DONGS = """
SELECT region_code, array_agg(dong_name ORDER BY dong_name COLLATE "C") AS names FROM legal_dong
 WHERE region_type = :type AND region_code = ANY(CAST(:codes AS text[])) AND status = 'ACTIVE'
  GROUP BY region_code
"""
# Until autovacuum comes, up to a minute later, a large list is planned as if the tables were empty.
# A role without the right (sql/roles.sql grants it, from PostgreSQL 17 on) gets a warning of the
# server, and waits for autovacuum.
GATHER_STATISTICS = "ANALYZE region, legal_dong, batch_checkpoint"
LAST_REFRESH = """
SELECT source, as_of, refreshed_at, refreshed_at < now() - make_interval(secs => :seconds) AS old
  FROM region_refresh WHERE region_type = :type ORDER BY refreshed_at DESC, id DESC LIMIT 1
"""


# The same list keeps its first day; another list starts with today.
NOTE_UNCONFIRMED = """
INSERT INTO unconfirmed_region_list AS known (region_type, fingerprint, leaves, missing, reason,
                                              needs_decision, first_seen_on, last_seen_on)
VALUES (:type, :fingerprint, :leaves, CAST(:missing AS text[]), :reason,
        :needs_decision, :day, :day)
ON CONFLICT (region_type) DO UPDATE
   SET fingerprint = excluded.fingerprint, leaves = excluded.leaves, missing = excluded.missing,
       reason = excluded.reason, needs_decision = excluded.needs_decision,
       last_seen_on = excluded.last_seen_on,
       first_seen_on = CASE WHEN known.settled_at IS NULL
                             AND known.fingerprint = excluded.fingerprint
                            THEN least(known.first_seen_on, excluded.first_seen_on)
                            ELSE excluded.first_seen_on END,
       settled_at = NULL
RETURNING fingerprint, reason, needs_decision, first_seen_on, last_seen_on
"""
SETTLE_UNCONFIRMED = """
UPDATE unconfirmed_region_list SET settled_at = now()
 WHERE region_type = :type AND settled_at IS NULL
"""
UNCONFIRMED = """
SELECT fingerprint, reason, needs_decision, first_seen_on, last_seen_on
  FROM unconfirmed_region_list WHERE region_type = :type AND settled_at IS NULL
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnconfirmedList:
    """The last complete download that was not taken over, with the Korean days on which it came."""

    fingerprint: str
    reason: str
    needs_decision: bool
    first_seen_on: dt.date
    last_seen_on: dt.date

    @property
    def believed(self) -> bool:
        """Return whether it came again on another day, and needs no decision of a person."""
        return not self.needs_decision and self.first_seen_on < self.last_seen_on

    @property
    def advice(self) -> str:
        """The state of the list in use, and the two ways to accept this one."""
        stays = "The old list stays"
        if not self.needs_decision:
            stays += " until the same list comes on another day (Korean time)"
        accept = "run refresh_regions with the config accept_any_change: true"
        return f"{stays}. If the change is real, {accept}."

    @property
    def sentence(self) -> str:
        """The sentence for status, doctor and ticks."""
        return f"Not believed since {self.first_seen_on}: {self.reason} {self.advice}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refresh:
    """The last accepted reading of the list; `source` is 'api' or 'snapshot'."""

    source: str
    as_of: dt.date
    refreshed_at: dt.datetime
    old: bool


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of one type."""

    database: Database
    region_type: str

    def active(self) -> list[Region]:
        """All active sigungu, parents included, by code."""
        found = self.database.transaction(
            lambda connection: rows(connection, REGIONS, type=self.region_type)
        )
        return [
            Region(**{name: value for name, value in row.items() if name != "partition_key"})
            for row in found
        ]

    def leaf_names(self) -> dict[str, str]:
        """Code → name of the active leaves."""
        return {
            region.region_code: region.region_name for region in self.active() if region.is_leaf
        }

    def partition_keys(self, codes: Collection[str] | None = None) -> dict[str, str]:
        """Code → partition key of the active leaves, all of them without `codes`."""
        found = self.database.transaction(
            lambda connection: rows(connection, REGIONS, type=self.region_type)
        )
        return {
            row["region_code"]: row["partition_key"]
            for row in found
            if row["is_leaf"] and (codes is None or row["region_code"] in codes)
        }

    def dongs(self, codes: Collection[str]) -> dict[str, list[str]]:
        """As `dongs_of`, in a transaction of its own."""
        return self.database.transaction(
            lambda connection: dongs_of(connection, self.region_type, codes)
        )

    def gather_statistics(self) -> None:
        """Update the planner's statistics after many new rows."""
        self.database.transaction(lambda connection: connection.execute(text(GATHER_STATISTICS)))

    def last_refresh(self, *, due_after_seconds: float = 0) -> Refresh | None:
        """The last accepted reading, None before the first."""
        found = self.database.transaction(
            lambda connection: rows(
                connection, LAST_REFRESH, type=self.region_type, seconds=due_after_seconds
            )
        )
        return Refresh(**found[0]) if found else None

    def unconfirmed(self) -> UnconfirmedList | None:
        """Return the list that was not accepted; None if the last one was."""

        def read(connection: Connection) -> UnconfirmedList | None:
            found = rows(connection, UNCONFIRMED, type=self.region_type)
            return UnconfirmedList(**found[0]) if found else None

        return self.database.transaction(read)

    def note_unconfirmed(
        self,
        connection: Connection,
        listed: RegionList,
        disbelief: Disbelief,
    ) -> UnconfirmedList:
        """Record a list that is not accepted at first sight."""
        values = {
            "type": self.region_type,
            "fingerprint": fingerprint(listed),
            "leaves": len(listed.leaves),
            "missing": list(disbelief.missing),
            "reason": disbelief.reason,
            "needs_decision": disbelief.needs_decision,
            "day": listed.as_of,
        }
        return UnconfirmedList(**rows(connection, NOTE_UNCONFIRMED, **values)[0])

    def settle_unconfirmed(self, connection: Connection) -> None:
        """Forget the unconfirmed list: a list was taken over."""
        connection.execute(text(SETTLE_UNCONFIRMED), {"type": self.region_type})

    def replace(
        self,
        connection: Connection,
        listed: RegionList,
        changes: RegionChanges,
        *,
        calls: int,
        note: str | None,
    ) -> None:
        """Take over the list: upsert its regions, mark missing ones ABOLISHED, delete nothing."""
        regions, dongs = listed.regions, listed.dongs
        common = {"type": self.region_type, "source": listed.source, "as_of": listed.as_of}
        region_codes = [region.region_code for region in regions]
        connection.execute(
            text(UPSERT_REGIONS),
            {
                **common,
                "codes": region_codes,
                "names": [region.region_name for region in regions],
                "sidos": [region.sido_name for region in regions],
                "sigungus": [region.sigungu_name for region in regions],
                "parents": [region.parent_code for region in regions],
                "leaves": [region.is_leaf for region in regions],
                "keys": [region.partition_key for region in regions],
            },
        )
        connection.execute(text(ABOLISH_REGIONS), {**common, "codes": region_codes})
        columns = {
            "codes": [dong.region_code for dong in dongs],
            "names": [dong.dong_name for dong in dongs],
        }
        connection.execute(
            text(UPSERT_DONGS),
            {**common, **columns, "dong_codes": [dong.dong_code for dong in dongs]},
        )
        connection.execute(text(ABOLISH_DONGS), {**common, **columns})
        counts = {"added": len(changes.added), "abolished": len(changes.abolished)}
        connection.execute(
            text(NOTE_REFRESH),
            {**common, **counts, "rows_read": listed.rows, "calls": calls, "note": note},
        )


def dongs_of(
    connection: Connection, region_type: str, codes: Collection[str]
) -> dict[str, list[str]]:
    """By region, the names of its dongs, eups, myeons and ris; those below an eup with its name
    before theirs.
    """
    found = rows(connection, DONGS, type=region_type, codes=sorted(codes))
    return {code: [] for code in codes} | {row["region_code"]: row["names"] for row in found}
