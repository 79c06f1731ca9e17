"""Gives places that the batch system left behind our key, so that a place found again is the row it was.

Its own `naver_place_id` was made in ways nobody wrote down, or is NULL; it is kept in `old_place_id`. Knows no other table
than `places` and the ledger, and runs inside the migration's transaction.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, text

from mohe_assets.places import clean_title, place_key
from mohe_assets.store.database import rows

PAGE = 5_000

# Whatever we found is named by the ledger, in the same transaction.
UNKNOWN = """
SELECT p.id, p.name, p.latitude, p.longitude FROM places p
 WHERE p.id > :after
   AND NOT EXISTS (SELECT FROM search_query q CROSS JOIN unnest(q.place_ids) AS found (id) WHERE found.id = p.id)
 ORDER BY p.id LIMIT :page
"""
# One that is in the table twice keeps its key in the first row; the other rows stay under the key they had.
ADOPT = """
UPDATE places p SET naver_place_id = own.key, old_place_id = p.naver_place_id
  FROM unnest(CAST(:ids AS bigint[]), CAST(:keys AS text[])) AS own (id, key)
 WHERE p.id = own.id AND p.naver_place_id IS DISTINCT FROM own.key
   AND NOT EXISTS (SELECT FROM places known WHERE known.naver_place_id = own.key)
"""
# They were seen when the batch system wrote them, not when the columns were added.
DATE = """
UPDATE places SET first_seen_at = least(first_seen_at, created_at), last_seen_at = updated_at,
                  naver_place_id = coalesce(naver_place_id, 'old-' || id)
 WHERE id = ANY(CAST(:ids AS bigint[]))
"""
SEAL = "ALTER TABLE places ALTER COLUMN naver_place_id SET NOT NULL"
TRIGGERS = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'places'::regclass AND NOT tgisinternal AND tgenabled = 'O'"


def adopt_places(connection: Connection) -> None:
    """Does nothing where there are no such places; `updated_at` stays as it is."""
    pages = _pages(connection)
    page = next(pages, None)
    if page is not None:
        quote = connection.dialect.identifier_preparer.quote
        triggers = [quote(row["tgname"]) for row in rows(connection, TRIGGERS)]
        _switch(connection, triggers, "DISABLE")
        while page is not None:
            _adopt(connection, page)
            page = next(pages, None)
        _switch(connection, triggers, "ENABLE")
    connection.execute(text(SEAL))


def _pages(connection: Connection) -> Iterator[list[dict[str, Any]]]:
    after = 0
    while page := rows(connection, UNKNOWN, after=after, page=PAGE):
        yield page
        after = page[-1]["id"]


def _switch(connection: Connection, triggers: list[str], what: str) -> None:
    for name in triggers:
        connection.execute(text(f"ALTER TABLE places {what} TRIGGER {name}"))


def _adopt(connection: Connection, page: list[dict[str, Any]]) -> None:
    first_of: dict[str, int] = {}
    for row in page:
        if row["latitude"] is not None and row["longitude"] is not None:
            first_of.setdefault(place_key(clean_title(row["name"]), row["latitude"], row["longitude"]), row["id"])
    connection.execute(text(ADOPT), {"ids": list(first_of.values()), "keys": list(first_of)})
    connection.execute(text(DATE), {"ids": [row["id"] for row in page]})
