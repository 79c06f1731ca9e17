"""The origin of a database's data: the simulator or the real APIs (sql/013_data_origin.sql)."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from mohe_assets.errors import OriginMismatch
from mohe_assets.store.database import Database, rows, statement

# The digests of the simulator's client ids, classic and HUB, as in `api_budget.account`.
SIMULATOR_ACCOUNTS = ("c47f4dd011b0485950539cdbea8cd95c", "1eaf2cbfd77d76979a19365b6efcae6b")

# A mark without data binds nothing: keys that were refused at once leave one.
PLACES_ORIGIN = """
SELECT origin FROM data_origin
 WHERE part = 'places' AND (EXISTS (SELECT FROM places) OR EXISTS (SELECT FROM search_query))
"""
REGIONS_ORIGIN = "SELECT origin FROM data_origin WHERE part = 'regions'"
# Another run that is alive may be about to store the first answer of the other origin.
CLAIM_PLACES = """
INSERT INTO data_origin AS known (part, origin) VALUES ('places', :origin)
ON CONFLICT (part) DO UPDATE SET origin = excluded.origin, noted_at = now()
 WHERE known.origin = 'none'
    OR known.origin <> excluded.origin
       AND NOT EXISTS (SELECT FROM places) AND NOT EXISTS (SELECT FROM search_query)
       AND NOT EXISTS (SELECT FROM batch_execution_metadata
                        WHERE status = 'RUNNING' AND execution_id <> :run_id)
"""
MARKED_PLACES = "SELECT origin FROM data_origin WHERE part = 'places'"
NOTE_REGIONS = """
INSERT INTO data_origin AS known (part, origin) VALUES ('regions', :origin)
ON CONFLICT (part) DO UPDATE SET origin = excluded.origin, noted_at = now()
 WHERE known.origin <> excluded.origin
"""
# Everything in a database of the simulator's is made up, whatever its batch and region type.
FORGET_SIMULATED = (
    "DELETE FROM places",
    "DELETE FROM search_query",
    "DELETE FROM batch_checkpoint",
    "UPDATE data_origin SET origin = 'none', noted_at = now() WHERE part = 'places'",
)
CLEAR_COUNTERS = (
    """UPDATE api_usage SET reserved = 0, refused_rate = 0, refused_quota = 0
        WHERE account = ANY(CAST(:accounts AS text[]))""",
    """UPDATE api_budget
          SET exhausted_until = NULL, exhausted_why = NULL, next_slot_at = '-infinity', pace = 1,
              paced_at = '-infinity', paced_calls = 0, paced_refused = 0
        WHERE account = ANY(CAST(:accounts AS text[]))""",
)


class Origin(StrEnum):
    """Of data, and of the keys that collect it."""

    NONE = "none"
    SIMULATOR = "simulator"
    API = "api"


@dataclass(frozen=True, kw_only=True)
class DataOrigin:
    """The marks of one database."""

    database: Database

    def places(self) -> Origin:
        """The origin of the places and the ledger; NONE while there are none."""
        return self._read(PLACES_ORIGIN)

    def regions(self) -> Origin:
        """The origin of the list of regions; NONE: not known."""
        return self._read(REGIONS_ORIGIN)

    def note_regions(self, origin: Origin) -> None:
        """Record the origin of the list."""
        self.database.transaction(
            lambda connection: connection.execute(statement(NOTE_REGIONS), {"origin": origin.value})
        )

    def claim(self, origin: Origin, run_id: str) -> None:
        """Mark the data that this run is about to store. Raises OriginMismatch if the database has
        other data, or another run is about to store some.
        """

        def work(connection: Connection) -> Origin:
            connection.execute(statement(CLAIM_PLACES), {"origin": origin.value, "run_id": run_id})
            return Origin(rows(connection, MARKED_PLACES)[0]["origin"])

        if (found := self.database.transaction(work)) != origin:
            raise OriginMismatch(str(mismatch(found, self.database.where)))

    def clear_simulator_counters(self) -> None:
        """Clear the counters for a simulator that was just started and knows no earlier calls."""
        self.database.transaction(clear_simulator_counters)

    def _read(self, sql: str) -> Origin:
        found = self.database.transaction(lambda connection: rows(connection, sql))
        return Origin(found[0]["origin"]) if found else Origin.NONE


def forget_simulated(connection: Connection) -> bool:
    """Delete all collected data and its account's counters if it is the simulator's; return whether
    it was.
    """
    found = rows(connection, MARKED_PLACES)
    if not found or found[0]["origin"] != Origin.SIMULATOR:
        return False
    for sql in FORGET_SIMULATED:
        connection.execute(statement(sql))
    clear_simulator_counters(connection)
    return True


def clear_simulator_counters(connection: Connection) -> None:
    """Clear the calls of the simulator's accounts. Their keys stay verified or refused."""
    for sql in CLEAR_COUNTERS:
        connection.execute(statement(sql), {"accounts": list(SIMULATOR_ACCOUNTS)})


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The reason data of one origin and keys of the other must not be mixed, and the action."""

    found: str
    advice: str

    def __str__(self) -> str:
        return f"{self.found} {self.advice}"


def mismatch(data: Origin, where: str) -> Mismatch:
    """For data of this origin in the database `where`."""
    if data is Origin.SIMULATOR:
        return Mismatch(
            f"The data in {where} is made up by the simulator, and the keys are not the "
            "simulator's: no API is called with it.",
            "`mohe db reset` empties the database; or set another MOHE_HOME or MOHE_DATABASE_URL.",
        )
    return Mismatch(
        f"The data in {where} comes from the real APIs, and the keys are the simulator's: "
        "no made-up place is mixed with it.",
        "Set another MOHE_HOME or MOHE_DATABASE_URL for the simulator.",
    )
