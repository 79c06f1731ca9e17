"""Adopt places of the previous batch system: give them our key, so that they keep their rows.

The undocumented `naver_place_id` of that system, or NULL, is kept in `old_place_id`. Uses only
`places` and the ledger, inside the migration's transaction.
"""

from sqlalchemy import Connection, text

from mohe_assets.domain.places import clean_title, place_key
from mohe_assets.store.database import rows

PAGE = 20_000  # rows per statement, which bounds the memory

# Places of our own are in the ledger, which is written in the same transaction.
FIND = (
    """CREATE TEMP TABLE unknown_places ON COMMIT DROP AS
       SELECT p.id FROM places p
        WHERE NOT EXISTS (SELECT FROM search_query q CROSS JOIN unnest(q.place_ids) AS found (id)
                           WHERE found.id = p.id)""",
    "ALTER TABLE unknown_places ADD PRIMARY KEY (id)",
    "ANALYZE unknown_places",
)
NEXT = """
SELECT p.id, p.name, p.latitude, p.longitude FROM unknown_places u JOIN places p USING (id)
 WHERE u.id > :after ORDER BY u.id LIMIT :page
"""
# Of duplicates the first row gets our key, the others keep theirs. The times of sighting are those
# of the batch system, not of the migration that added the columns.
ADOPT = """
UPDATE places p
   SET naver_place_id = coalesce(fit.key, p.naver_place_id, 'old-' || p.id),
       old_place_id = CASE WHEN fit.key <> p.naver_place_id THEN p.naver_place_id
                           ELSE p.old_place_id END,
       first_seen_at = least(p.first_seen_at, p.created_at), last_seen_at = p.updated_at
  FROM (SELECT own.id,
               CASE WHEN NOT EXISTS (SELECT FROM places known WHERE known.naver_place_id = own.key)
                    THEN own.key END AS key
          FROM unnest(CAST(:ids AS bigint[]), CAST(:keys AS text[])) AS own (id, key)) fit
 WHERE p.id = fit.id
"""
SEAL = "ALTER TABLE places ALTER COLUMN naver_place_id SET NOT NULL"
TRIGGERS = """
SELECT tgname FROM pg_trigger
 WHERE tgrelid = 'places'::regclass AND NOT tgisinternal AND tgenabled = 'O'
"""


def adopt_places(connection: Connection) -> None:
    """Give all places outside the ledger our key; `updated_at` stays unchanged."""
    for statement in FIND:
        connection.execute(text(statement))
    page = rows(connection, NEXT, after=0, page=PAGE)
    if page:
        quote = connection.dialect.identifier_preparer.quote
        triggers = [quote(row["tgname"]) for row in rows(connection, TRIGGERS)]
        _switch(connection, triggers, "DISABLE")
        while page:
            ids = [row["id"] for row in page]
            # None for a place without a point, or with the key of an earlier row.
            keys: dict[int, str | None] = dict.fromkeys(ids)
            taken: set[str] = set()
            for row in page:
                if row["latitude"] is not None and row["longitude"] is not None:
                    key = place_key(clean_title(row["name"]), row["latitude"], row["longitude"])
                    keys[row["id"]] = None if key in taken else key
                    taken.add(key)
            connection.execute(text(ADOPT), {"ids": ids, "keys": list(keys.values())})
            page = rows(connection, NEXT, after=ids[-1], page=PAGE)
        _switch(connection, triggers, "ENABLE")
    connection.execute(text(SEAL))


def _switch(connection: Connection, triggers: list[str], action: str) -> None:
    for name in triggers:
        connection.execute(text(f"ALTER TABLE places {action} TRIGGER {name}"))
