"""Gives places that the batch system left behind our key, so that a place found again is the row it
was.

Its own `naver_place_id` was made in ways nobody wrote down, or is NULL; it is kept in
`old_place_id`. Knows no other table than `places` and the ledger, and runs inside the migration's
transaction.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, text

from mohe_assets.domain.places import clean_title, place_key
from mohe_assets.store.database import rows

PAGE = 20_000

# Whatever we found is named by the ledger, in the same transaction.
FIND = (
    """CREATE TEMP TABLE unknown_places ON COMMIT DROP AS
       SELECT p.id FROM places p
        WHERE NOT EXISTS (SELECT FROM search_query q CROSS JOIN unnest(q.place_ids) AS found (id) WHERE found.id = p.id)""",
    "ALTER TABLE unknown_places ADD PRIMARY KEY (id)",
    "ANALYZE unknown_places",
)
NEXT = """
SELECT p.id, p.name, p.latitude, p.longitude FROM unknown_places u JOIN places p USING (id)
 WHERE u.id > :after ORDER BY u.id LIMIT :page
"""
# One that is in the table twice gets its key in the first row; the other rows stay under the key
# they had. All were seen when the batch system wrote them, not when the columns were added.
ADOPT = """
UPDATE places p
   SET naver_place_id = coalesce(fit.key, p.naver_place_id, 'old-' || p.id),
       old_place_id = CASE WHEN fit.key <> p.naver_place_id THEN p.naver_place_id ELSE p.old_place_id END,
       first_seen_at = least(p.first_seen_at, p.created_at), last_seen_at = p.updated_at
  FROM (SELECT own.id,
               CASE WHEN NOT EXISTS (SELECT FROM places known WHERE known.naver_place_id = own.key) THEN own.key END AS key
          FROM unnest(CAST(:ids AS bigint[]), CAST(:keys AS text[])) AS own (id, key)) fit
 WHERE p.id = fit.id
"""
SEAL = "ALTER TABLE places ALTER COLUMN naver_place_id SET NOT NULL"
TRIGGERS = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'places'::regclass AND NOT tgisinternal AND tgenabled = 'O'"


def adopt_places(connection: Connection) -> None:
    """Does nothing where there are no such places; `updated_at` stays as it is."""
    for statement in FIND:
        connection.execute(text(statement))
    pages = _pages(connection)
    page = next(pages, None)
    if page is not None:
        quote = connection.dialect.identifier_preparer.quote
        triggers = [quote(row["tgname"]) for row in rows(connection, TRIGGERS)]
        _switch(connection, triggers, "DISABLE")
        while page is not None:
            connection.execute(
                text(ADOPT), {"ids": [row["id"] for row in page], "keys": _keys(page)}
            )
            page = next(pages, None)
        _switch(connection, triggers, "ENABLE")
    connection.execute(text(SEAL))


def _pages(connection: Connection) -> Iterator[list[dict[str, Any]]]:
    after = 0
    while page := rows(connection, NEXT, after=after, page=PAGE):
        yield page
        after = page[-1]["id"]


def _switch(connection: Connection, triggers: list[str], what: str) -> None:
    for name in triggers:
        connection.execute(text(f"ALTER TABLE places {what} TRIGGER {name}"))


def _keys(page: list[dict[str, Any]]) -> list[str | None]:
    """The key of each place, None without a point or where a row before it has it."""
    given: set[str] = set()
    keys: list[str | None] = []
    for row in page:
        has_point = row["latitude"] is not None and row["longitude"] is not None
        key = (
            place_key(clean_title(row["name"]), row["latitude"], row["longitude"])
            if has_point
            else None
        )
        keys.append(None if key in given else key)
        given.add(key or "")
    return keys
