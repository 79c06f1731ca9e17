"""Violations in the collected data: for each rule the exact number of rows, and a few of them.
Reads only.

The rules are constants here, with their reasons.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mohe_assets.domain.places import KOREAN_LATITUDES, KOREAN_LONGITUDES, MAX_RESULTS
from mohe_assets.domain.regions import region_points
from mohe_assets.store.checkpoints import Checkpoints
from mohe_assets.store.database import rows

SHOWN_AT_MOST = 20
PLACES_AT_ONCE = 20_000
# Regions differ in size by a factor of a hundred and have islands: each is measured by itself, with
# room for the small ones.
NEAR_KM = 30.0
NEAR_P90S = 4.0
# 백령도 is 150 km from its region's point, more than any other place; in a region of few places an
# outlier is p90.
FAR_KM = 200.0
# A street-map address without a leaf region is rare: a new name that the list does not have yet, or
# an answer without one.
ATTRIBUTED_AT_LEAST = 0.95
SAME_PLACE_METRES = 20.0
# The same searches give about the same places; losing half, and more than a handful, is an error.
DROP_TO = 0.5
DROP_BY = 5
# The whole country does not lose a tenth of its places between two rounds; the answers have
# changed.
NATIONAL_DROP_TO = 0.9
# Of one reason; places named after a mountain or a village, and coordinates of an old format, are
# about 3 % each.
REJECTED_AT_MOST = 0.15

_KM_PER_DEGREE = 111.195
# Flat within a region: at these distances the error is below a per cent.
_KM = f"""{_KM_PER_DEGREE} * sqrt(power(%(a)s.latitude::float8 - %(b)s.latitude::float8, 2)
          + power((%(a)s.longitude::float8 - %(b)s.longitude::float8)
                  * cos(radians(%(a)s.latitude::float8)), 2))"""
_ACTIVE = "r.region_type = :type AND r.is_leaf AND r.status = 'ACTIVE'"
_OURS = "c.batch_name = :batch AND c.region_type = :type"

OUTSIDE_KOREA = """
SELECT id, name, address, latitude::float8, longitude::float8 FROM places
 WHERE region_type = :type AND NOT (latitude > :south AND latitude < :north AND longitude > :west
                                    AND longitude < :east)
"""
FAR_FROM_THEIR_REGION = f"""
WITH point AS (
    SELECT * FROM unnest(CAST(:codes AS text[]), CAST(:latitudes AS float8[]),
                         CAST(:longitudes AS float8[]))
               AS point (code, latitude, longitude)
), placed AS (
    SELECT p.id, p.name, p.address, p.region_code, {_KM % {"a": "p", "b": "point"}} AS km
      FROM places p JOIN point ON point.code = left(p.region_code, 5) WHERE p.region_type = :type
), bound AS (
    SELECT region_code,
           least(:far_km,
                 greatest(:near_km,
                          :near_p90s * percentile_cont(0.9) WITHIN GROUP (ORDER BY km))) AS bound
      FROM placed GROUP BY region_code
)
SELECT id, name, address, region_code, round(km::numeric, 1)::float8 AS km,
       round(bound::numeric, 1)::float8 AS bound_km
  FROM placed JOIN bound USING (region_code) WHERE km > bound
"""
WITHOUT_A_REGION = """
SELECT p.id, p.name, p.address FROM places p
 WHERE p.region_type = :type
   AND NOT EXISTS (SELECT FROM region r WHERE r.region_type = p.region_type
                   AND r.region_code = p.region_code)
"""
# Cells are wider than SAME_PLACE_METRES in all of Korea, so neighbours are in the same or in an
# adjacent one; comparing all branches of a chain with one another would take minutes.
DUPLICATES = f"""
WITH titled AS MATERIALIZED (
    SELECT id, name, address, latitude, longitude,
           lower(replace(normalize(name, NFKC), ' ', '')) AS title,
           floor(latitude * 4000)::int AS row, floor(longitude * 4000)::int AS cell
      FROM places WHERE region_type = :type
), pairs AS (
    SELECT one.id AS one_id, two.id AS two_id
      FROM titled one JOIN titled two ON two.title = one.title AND two.address = one.address
          AND two.id > one.id
    UNION
    SELECT one.id, two.id
      FROM titled one CROSS JOIN generate_series(-1, 1) AS north
      CROSS JOIN generate_series(-1, 1) AS east
      JOIN titled two ON two.title = one.title AND two.row = one.row + north
          AND two.cell = one.cell + east AND two.id > one.id
     WHERE 1000 * {_KM % {"a": "one", "b": "two"}} <= :same_place_metres
)
SELECT one.id, two.id AS other_id, one.name, one.address, two.address AS other_address,
       round((1000 * {_KM % {"a": "one", "b": "two"}})::numeric, 1)::float8 AS metres
  FROM pairs JOIN places one ON one.id = one_id JOIN places two ON two.id = two_id
"""
# Only base-plan searches of both rounds: a round is refined for days, and the next must not be
# blamed for that.
DROPS = f"""
SELECT c.region_code, c.region_name, c.round, before.places AS places_before,
       after.places AS places_now
  FROM batch_checkpoint c
 CROSS JOIN LATERAL (
       SELECT count(DISTINCT p) AS places FROM search_query q, unnest(q.place_ids) p
        WHERE (q.batch_name, q.region_type, q.region_code, q.round)
              = (c.batch_name, c.region_type, c.region_code, c.round) AND %(both)s) after
 CROSS JOIN LATERAL (
       SELECT count(DISTINCT p) AS places FROM search_query q, unnest(q.place_ids) p
        WHERE (q.batch_name, q.region_type, q.region_code, q.round)
              = (c.batch_name, c.region_type, c.region_code, c.round - 1) AND %(both)s) before
 WHERE {_OURS} AND c.status = 'COMPLETED' AND c.round > 1
   AND after.places < :drop_to * before.places AND before.places - after.places > :drop_by
""" % {
    "both": """q.stage = 'base' AND q.status = 'DONE' AND 2 = (
                   SELECT count(*) FROM search_query o
                    WHERE (o.batch_name, o.region_type, o.region_code, o.source, o.query, o.sort)
                          = (q.batch_name, q.region_type, q.region_code, q.source, q.query, q.sort)
                      AND o.round IN (c.round, c.round - 1) AND o.status = 'DONE')"""
}
WITHOUT_A_PLACE = f"""
SELECT c.region_code, c.region_name, c.searches_done, c.end_time::text AS completed_at
  FROM batch_checkpoint c JOIN region r USING (region_type, region_code)
 WHERE {_OURS} AND {_ACTIVE} AND (c.status = 'COMPLETED' OR c.refining) AND c.searches_done > 0
   AND c.processed_count = 0
"""
SKIPPED = f"""
SELECT c.region_code, c.region_name, q.query, q.stage, q.failed_rounds, q.error_message
  FROM batch_checkpoint c JOIN search_query q USING (batch_name, region_type, region_code, round)
 WHERE {_OURS} AND q.status = 'SKIPPED'
"""
# Of each reason: items of the present rounds that were rejected for it, and their share of all
# items.
REJECTED = f"""
WITH answered AS (
    SELECT q.set_aside, q.result_count
      FROM batch_checkpoint c JOIN search_query q USING (batch_name, region_type, region_code,
                                                         round)
     WHERE {_OURS} AND q.status = 'DONE'
), items AS (SELECT coalesce(sum(result_count), 0) AS items FROM answered)
SELECT item ->> 'reason' AS reason, count(*) AS rejected, max(items.items) AS items,
       count(*)::float8 / greatest(1, max(items.items)) AS share
  FROM items, answered, jsonb_array_elements(answered.set_aside) AS item GROUP BY 1
"""
NATIONAL_DROP = f"""
SELECT count(*) AS regions, coalesce(sum(before.places), 0) AS places_before,
       coalesce(sum(after.places), 0) AS places_now
  FROM batch_checkpoint c
 CROSS JOIN LATERAL (
       SELECT count(DISTINCT p) AS places FROM search_query q, unnest(q.place_ids) p
        WHERE (q.batch_name, q.region_type, q.region_code, q.round)
              = (c.batch_name, c.region_type, c.region_code, c.round) AND q.stage = 'base'
                  AND q.status = 'DONE') after
 CROSS JOIN LATERAL (
       SELECT count(DISTINCT p) AS places FROM search_query q, unnest(q.place_ids) p
        WHERE (q.batch_name, q.region_type, q.region_code, q.round)
              = (c.batch_name, c.region_type, c.region_code, c.round - 1) AND q.stage = 'base'
                  AND q.status = 'DONE') before
 WHERE {_OURS} AND c.round > 1 AND (c.status = 'COMPLETED' OR c.refining)
"""
FAILED = f"""
SELECT c.region_code, c.region_name, c.failure_kind, c.failures, c.error_message, c.retry_at
  FROM batch_checkpoint c JOIN region r USING (region_type, region_code) WHERE {_OURS} AND {_ACTIVE}
      AND c.status = 'FAILED'
"""
GIVEN_UP = f"{FAILED} AND c.retry_at IS NULL"
INCOMPLETE = f"""
SELECT r.region_code, r.region_name, coalesce(c.status, 'no checkpoint') AS status
  FROM region r
  LEFT JOIN batch_checkpoint c ON c.region_type = r.region_type AND c.region_code = r.region_code
      AND c.batch_name = :batch
 WHERE {_ACTIVE} AND (c.status IS NULL OR c.status NOT IN ('COMPLETED', 'FAILED')
                      AND NOT c.refining)
"""
COMPLETENESS = f"""
SELECT (SELECT count(*) FROM region r WHERE {_ACTIVE}) AS active_regions,
       (SELECT count(*) FROM region r WHERE r.region_type = :type AND r.is_leaf
        AND r.status = 'ABOLISHED') AS abolished_regions,
       (SELECT count(*) FROM batch_checkpoint c WHERE {_OURS}
        AND (c.status = 'COMPLETED' OR c.refining)) AS completed,
       (SELECT count(*) FROM batch_checkpoint c WHERE {_OURS} AND c.status = 'FAILED') AS failed,
       searches.* FROM (
           SELECT count(*) AS searches,
                  count(*) FILTER (WHERE q.result_count >= :full_answer) AS full_searches,
                  count(DISTINCT q.region_code) FILTER (WHERE q.result_count >= :full_answer)
                      AS regions_with_full_searches
             FROM search_query q JOIN batch_checkpoint c USING (batch_name, region_type,
                                                                region_code, round)
            WHERE {_OURS} AND q.status = 'DONE') searches
"""
_LAST = """(SELECT * FROM region_refresh WHERE region_type = :type
           ORDER BY refreshed_at DESC, id DESC LIMIT 1)"""
NOT_AS_LISTED = f"""
SELECT coalesce(r.region_code, c.region_code) AS region_code,
       coalesce(r.region_name, c.region_name) AS region_name,
       CASE WHEN r.region_code IS NULL THEN 'a checkpoint of no known region'
            WHEN c.region_code IS NULL THEN 'no checkpoint' ELSE 'not in the last list' END AS what
  FROM region r FULL JOIN (SELECT * FROM batch_checkpoint c WHERE {_OURS}) c USING (region_type,
                                                                                    region_code)
 WHERE r.region_code IS NULL
    OR {_ACTIVE} AND (c.region_code IS NULL OR NOT EXISTS (SELECT FROM {_LAST} l
                                                           WHERE (l.source, l.as_of) = (r.source,
                                                                                        r.as_of)))
"""
LISTED = f"""
SELECT (SELECT count(*) FROM region r WHERE {_ACTIVE}) AS active_regions,
       (SELECT count(*) FROM batch_checkpoint c JOIN region r USING (region_type, region_code)
         WHERE {_OURS} AND {_ACTIVE}) AS checkpoints,
       l.id AS last_refresh, l.source, l.as_of::text, l.rows_read, l.added, l.abolished
  FROM (SELECT 1) one LEFT JOIN {_LAST} l ON true
"""
NEXT_PLACES = (
    "SELECT * FROM places WHERE region_type = :type AND id > :last ORDER BY id LIMIT :limit"
)
PLACES = "SELECT count(*) AS places FROM places WHERE region_type = :type"

_COUNTED = f"""
WITH offending AS MATERIALIZED (%s)
SELECT (SELECT count(*) FROM offending) AS count,
       coalesce((SELECT jsonb_agg(shown) FROM (SELECT * FROM offending ORDER BY 1, 2
                                               LIMIT {SHOWN_AT_MOST}) shown), '[]') AS shown
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Violations:
    """The number of rows that violate a rule, and SHOWN_AT_MOST of them."""

    count: int
    shown: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The data of one region type, and one batch's work on it."""

    checkpoints: Checkpoints

    def outside_korea(self) -> Violations:
        """Places whose point is none in Korea."""
        bounds = {"south": KOREAN_LATITUDES[0], "north": KOREAN_LATITUDES[1]}
        return self._violations(
            OUTSIDE_KOREA, **bounds, west=KOREAN_LONGITUDES[0], east=KOREAN_LONGITUDES[1]
        )

    def far_from_their_region(self) -> Violations:
        """Places over NEAR_P90S times as far from their region's point as nine in ten of its
        places, and over NEAR_KM; or over FAR_KM.
        """
        points = region_points()
        columns = {
            "codes": list(points),
            "latitudes": [latitude for latitude, _ in points.values()],
            "longitudes": [longitude for _, longitude in points.values()],
        }
        return self._violations(
            FAR_FROM_THEIR_REGION, **columns, near_km=NEAR_KM, near_p90s=NEAR_P90S, far_km=FAR_KM
        )

    def without_a_region(self) -> Violations:
        """Places whose address names no known region."""
        return self._violations(WITHOUT_A_REGION)

    def places(self) -> int:
        """Return the number of places."""
        return int(self._one(PLACES)["places"])

    def place_rows(self) -> Iterator[list[dict[str, Any]]]:
        """All columns of all places by id, PLACES_AT_ONCE of them at a time."""

        def page(last: int) -> list[dict[str, Any]]:
            return self.checkpoints.database.transaction(
                lambda connection: rows(
                    connection,
                    NEXT_PLACES,
                    type=self.checkpoints.scope.region_type,
                    limit=PLACES_AT_ONCE,
                    last=last,
                )
            )

        last = 0
        while True:
            found = page(last)
            if not found:
                return
            yield found
            last = found[-1]["id"]

    def duplicates(self) -> Violations:
        """Pairs of places with one title at one address, or within SAME_PLACE_METRES."""
        return self._violations(DUPLICATES, same_place_metres=SAME_PLACE_METRES)

    def drops(self) -> Violations:
        """Regions whose finished round found far fewer places than the round before did with the
        same searches.
        """
        return self._violations(DROPS, drop_to=DROP_TO, drop_by=DROP_BY)

    def without_a_place(self) -> Violations:
        """Regions completed although none of their searches brought a place."""
        return self._violations(WITHOUT_A_PLACE)

    def skipped_searches(self) -> Violations:
        """Searches of the present rounds that are left out for good, with their reasons."""
        return self._violations(SKIPPED)

    def rejected(self) -> Mapping[str, float]:
        """By reason, the share of all items of the present rounds that were rejected for it."""
        checkpoints = self.checkpoints
        found = checkpoints.database.transaction(
            lambda connection: rows(connection, REJECTED, **checkpoints.scope.values)
        )
        return {row["reason"]: row["share"] for row in found}

    def national_drop(self) -> Mapping[str, int]:
        """Return places of base plans, then and now, over regions completed more than once."""
        return {name: int(value) for name, value in self._one(NATIONAL_DROP).items()}

    def failed(self) -> Violations:
        """Active regions that are FAILED."""
        return self._violations(FAILED)

    def given_up(self) -> int:
        """Return how many of them only a person retries."""
        return self._violations(GIVEN_UP).count

    def incomplete(self) -> Violations:
        """Active regions that are neither COMPLETED nor FAILED, or have no checkpoint at all."""
        return self._violations(INCOMPLETE)

    def completeness(self) -> Mapping[str, Any]:
        """Regions by how they ended, and how many searches of their present rounds were full."""
        return self._one(COMPLETENESS, full_answer=MAX_RESULTS)

    def not_as_listed(self) -> Violations:
        """Active regions without a checkpoint or not in the last list, and checkpoints of no
        region.
        """
        return self._violations(NOT_AS_LISTED)

    def listed(self) -> Mapping[str, Any]:
        """Active regions, their checkpoints, and the last refresh with its numbers."""
        return self._one(LISTED)

    def _violations(self, sql: str, **values: object) -> Violations:
        return Violations(**self._one(_COUNTED % sql.strip(), **values))

    def _one(self, sql: str, **values: object) -> dict[str, Any]:
        checkpoints = self.checkpoints
        return checkpoints.database.transaction(
            lambda connection: rows(connection, sql, **checkpoints.scope.values, **values)[0]
        )
