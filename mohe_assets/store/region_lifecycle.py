"""Change places, checkpoints and names when regions are abolished, and build the index of
addresses.

Everything here but `index` belongs into the transaction that takes the list over. Lock order of
that transaction: the list lock (exclusive; a search that is being stored holds it shared), region
and legal_dong, places by key, batch_checkpoint.
"""

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from mohe_assets.domain.attribution import RegionIndex
from mohe_assets.domain.regions import (
    REGION_TYPE_SIGUNGU,
    Region,
    bundled_successions,
    region_points,
)
from mohe_assets.domain.succession import DongSet, Succession
from mohe_assets.store.database import Database, rows, statement
from mohe_assets.store.regions import dongs_of

# Searches are stored under the list as it is: storing (sql/012_locks_and_digests.sql) locks this
# table in ROW EXCLUSIVE MODE, taking a list over in a mode that excludes that one and no reading.
# So no place is written under a code that is being abolished, and the two cannot deadlock, since it
# is the first lock of both. A table, because an advisory lock takes no right: a role that may only
# read could hold it.
CHANGE_LIST = "LOCK TABLE region_refresh IN SHARE ROW EXCLUSIVE MODE"

LEAVES = """
SELECT r.region_code, r.region_name, r.sido_name,
       array_agg(d.dong_name) FILTER (WHERE d.dong_name IS NOT NULL) AS dongs
  FROM region r LEFT JOIN legal_dong d ON (d.region_type, d.region_code, d.status) = (r.region_type,
                                                                                      r.region_code,
                                                                                      'ACTIVE')
 WHERE r.region_type = :type AND r.status = 'ACTIVE' AND r.is_leaf GROUP BY 1, 2, 3 ORDER BY 1
"""
ACTIVE = """
SELECT region_code, region_name, sido_name, sigungu_name, parent_code, is_leaf
  FROM region WHERE region_type = :type AND status = 'ACTIVE' ORDER BY region_code
"""
SUCCESSIONS = """
SELECT old_code, old_name, new_code, new_name, shared_dongs, share_of_old, share_of_new
  FROM region_succession WHERE region_type = :type ORDER BY old_code, new_code
"""
WRITE_SUCCESSION = """
INSERT INTO region_succession (region_type, old_code, old_name, new_code, new_name, shared_dongs,
                               share_of_old, share_of_new,
                               as_of)
VALUES (:type, :old_code, :old_name, :new_code, :new_name, :shared_dongs, :share_of_old,
        :share_of_new, :as_of)
ON CONFLICT (region_type, old_code, old_name, new_code) DO UPDATE
   SET new_name = excluded.new_name, shared_dongs = excluded.shared_dongs,
       share_of_old = excluded.share_of_old,
       share_of_new = excluded.share_of_new, as_of = excluded.as_of, source = NULL
"""
# An old region whose successors were inferred from a list keeps those.
SEED_SUCCESSIONS = """
INSERT INTO region_succession (region_type, old_code, old_name, new_code, new_name, shared_dongs,
                               share_of_old, share_of_new, as_of, source)
SELECT :type, s.old_code, s.old_name, s.new_code, s.new_name, s.shared_dongs,
       coalesce(s.shared_dongs / s.of_old, 1), coalesce(s.shared_dongs / s.of_new, 1),
       s.date, s.source
  FROM (SELECT *,
               nullif(sum(shared_dongs) OVER (PARTITION BY old_code, old_name), 0)::float AS of_old,
               nullif(sum(shared_dongs) OVER (PARTITION BY new_code), 0)::float AS of_new
          FROM jsonb_to_recordset(CAST(:successions AS jsonb))
            AS shipped (old_code text, old_name text, new_code text, new_name text,
                        shared_dongs integer, date date, source text)) s
 WHERE NOT EXISTS (SELECT FROM region_succession known
                    WHERE known.region_type = :type AND known.source IS NULL
                      AND (known.old_code, known.old_name) = (s.old_code, s.old_name))
ON CONFLICT (region_type, old_code, old_name, new_code) DO NOTHING
"""
# By key, as the ledger locks them; a page at a time, so that the connection never pauses for long.
UNASSIGNED = """
SELECT id, naver_place_id, address, road_address, latitude, longitude, region_code FROM places p
 WHERE region_type = :type AND naver_place_id > :after
   AND NOT EXISTS (SELECT FROM region r WHERE r.region_type = p.region_type
                   AND r.region_code = p.region_code
                      AND r.status = 'ACTIVE' AND r.is_leaf)
 ORDER BY naver_place_id LIMIT :page FOR UPDATE
"""
REASSIGN = """
UPDATE places p SET region_code = moved.code
  FROM unnest(CAST(:ids AS bigint[]), CAST(:codes AS text[])) AS moved (id, code)
 WHERE p.id = moved.id AND p.region_code IS DISTINCT FROM moved.code
"""
# Fenced like a new claim: the holder finds its lease lost at the next write, and no run is stopped.
REVOKE = """
WITH gone AS (
    SELECT c.id FROM batch_checkpoint c
     WHERE c.region_type = :type AND c.status = 'PROCESSING'
       AND NOT EXISTS (SELECT FROM region r WHERE r.region_type = c.region_type
                       AND r.region_code = c.region_code
                          AND r.status = 'ACTIVE' AND r.is_leaf)
     ORDER BY c.region_code FOR UPDATE OF c
)
UPDATE batch_checkpoint c
   SET status = CASE WHEN c.refining THEN 'COMPLETED' ELSE 'PENDING' END, refining = false,
       attempt = c.attempt + 1,
       lease_expires_at = NULL
  FROM gone WHERE c.id = gone.id
"""
VERSION = "SELECT coalesce(max(id), 0) AS version FROM region_refresh WHERE region_type = :type"
PAGE = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Reassigned:
    """Places of abolished or unknown regions: `moved` have an active region now, `unassigned` have
    none.
    """

    moved: int
    unassigned: int


@dataclass(frozen=True, kw_only=True)
class Lifecycle:
    """The generations of the regions of one type."""

    database: Database
    region_type: str

    def index(self) -> RegionIndex:
        """Reads addresses under the names of now and of before."""
        return self.database.transaction(self._index)

    def version(self) -> int:
        """Return the version of the list, which grows with every list."""
        found = self.database.transaction(
            lambda connection: rows(connection, VERSION, type=self.region_type)
        )
        return int(found[0]["version"])

    def _index(self, connection: Connection) -> RegionIndex:
        active = [Region(**row) for row in rows(connection, ACTIVE, type=self.region_type)]
        successions = [
            Succession(**row) for row in rows(connection, SUCCESSIONS, type=self.region_type)
        ]
        return RegionIndex(
            active,
            lambda codes: dongs_of(connection, self.region_type, codes),
            successions,
            region_points(),
        )

    def lock(self, connection: Connection) -> None:
        """Wait for searches that are being stored and block others; first in the transaction."""
        connection.execute(statement(CHANGE_LIST))

    def leaves(self, connection: Connection) -> list[DongSet]:
        """The active leaves with their dongs."""
        found = rows(connection, LEAVES, type=self.region_type)
        return [DongSet(**{**row, "dongs": frozenset(row["dongs"] or ())}) for row in found]

    def record(
        self, connection: Connection, successions: Sequence[Succession], *, as_of: object
    ) -> None:
        """Record the successions."""
        for one in successions:
            values = {name: getattr(one, name) for name in one.__dataclass_fields__}
            connection.execute(
                statement(WRITE_SUCCESSION), {**values, "type": self.region_type, "as_of": as_of}
            )

    def reassign_regions(self, connection: Connection) -> Reassigned:
        """Give the places of abolished and unknown regions the region of their address, or NULL."""
        index, after, moved, unassigned = self._index(connection), "", 0, 0
        while page := rows(connection, UNASSIGNED, type=self.region_type, after=after, page=PAGE):
            codes = [
                index.region_of(
                    row["address"],
                    road_address=row["road_address"],
                    point=(row["latitude"], row["longitude"]),
                    formerly=row["region_code"],
                )
                for row in page
            ]
            connection.execute(
                statement(REASSIGN), {"ids": [row["id"] for row in page], "codes": codes}
            )
            moved += _count(code is not None for code in codes)
            unassigned += _count(code is None for code in codes)
            after = page[-1]["naver_place_id"]
        return Reassigned(moved=moved, unassigned=unassigned)

    def revoke(self, connection: Connection) -> int:
        """PROCESSING → PENDING for regions that are no longer collected; return the number of ended
        leases.
        """
        return connection.execute(statement(REVOKE), {"type": self.region_type}).rowcount


@dataclass
class CachedIndex:
    """The index of one list, for a whole run. A write by an outdated index raises ListChanged."""

    lifecycle: Lifecycle
    _known: tuple[int, RegionIndex] | None = None
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @property
    def known(self) -> tuple[int, RegionIndex] | None:
        """Return `current` if that needs no statement, otherwise None."""
        return self._known

    def current(self) -> tuple[int, RegionIndex]:
        """Return the list's version and its index."""
        with self._reading:
            if self._known is None:
                # In this order: a list taken over in between is noticed by the next write.
                self._known = self.lifecycle.version(), self.lifecycle.index()
            return self._known

    def outdated(self, version: int) -> None:
        """Read the list again: another than this version was taken over."""
        with self._reading:
            if self._known is not None and self._known[0] == version:
                self._known = None


def seed_successions(connection: Connection, region_type: str) -> None:
    """Record the bundled successions of sigungu, where none was inferred for the old one."""
    if region_type == REGION_TYPE_SIGUNGU:
        packaged_file = json.dumps(bundled_successions(), ensure_ascii=False)
        values = {"type": region_type, "successions": packaged_file}
        connection.execute(statement(SEED_SUCCESSIONS), values)


def _count(flags: Iterable[bool]) -> int:
    return sum(1 for flag in flags if flag)
