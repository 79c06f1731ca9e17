"""Detect a hanging Dagster daemon: a thread of it waits for a dead connection."""

import time
from dataclasses import dataclass, field

from mohe_assets.errors import DatabaseUnavailable
from mohe_assets.store.database import Database, rows

# Dagster's threads write a heartbeat every half minute. Dagster itself waits for half an hour.
SILENT_SECONDS = 120.0

HEARTBEATS = "SELECT daemon_type AS name, body FROM daemon_heartbeats"


@dataclass(kw_only=True)
class DaemonWatch:
    """Read the heartbeats in Dagster's storage at `url`, each time by a new connection.

    A thread counts as alive if its heartbeat changes; its time is not compared, since clocks may
    differ. A heartbeat that never changed while it was watched belongs to an earlier daemon.
    """

    url: str
    silent_seconds: float = SILENT_SECONDS
    _seen: dict[str, str] = field(default_factory=dict)
    _changed_at: dict[str, float] = field(default_factory=dict)

    def look(self) -> str:
        """Return the reason to restart the daemon, empty without a reason.

        After a reason the watch starts from the beginning, for the next daemon.
        """
        now = time.monotonic()
        database = Database.connect(
            self.url, reconnect_seconds=0, session={"statement_timeout": "5s"}
        )
        try:
            found = database.transaction(lambda connection: rows(connection, HEARTBEATS))
        except DatabaseUnavailable:
            # The daemon cannot write a heartbeat either: its time starts when the database is back.
            self._changed_at = dict.fromkeys(self._changed_at, now)
            return ""
        finally:
            database.close()
        for row in found:
            name, body = str(row["name"]), str(row["body"])
            if self._seen.get(name, body) != body:
                self._changed_at[name] = now
            self._seen[name] = body
        silent = sorted(
            name for name, at in self._changed_at.items() if now - at > self.silent_seconds
        )
        if not silent:
            return ""
        self._seen, self._changed_at = {}, {}
        return f"no heartbeat of {', '.join(silent)} for {self.silent_seconds:g} s"
