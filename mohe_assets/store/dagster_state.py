"""Whether Dagster launches runs: heartbeats and last ticks, read from its own tables.

By SQL, because importing Dagster takes longer than the rest of `mohe status`. A test reads what
Dagster itself has written.
"""

from dataclasses import dataclass

from mohe_assets.store.database import PATIENCE, Database, rows

# Daemons that must run for regions to be collected without a person.
DAEMONS = ("SENSOR", "QUEUED_RUN_COORDINATOR")
PENDING_REGION_SENSOR = "pending_region_sensor"
# A daemon writes a heartbeat every half minute. Dagster itself accepts one of half an hour ago.
SILENT_SECONDS = 120

TABLES = """
SELECT count(to_regclass(name)) AS found, count(*) AS needed
  FROM unnest(ARRAY['daemon_heartbeats', 'instigators', 'job_ticks']) AS name
"""
HEARTBEATS = """
SELECT daemon_type AS name,
       extract(epoch FROM clock_timestamp()) - (body::jsonb ->> 'timestamp')::float8 AS seconds_ago
  FROM daemon_heartbeats
"""
SENSORS = """
SELECT coalesce(i.instigator_body::jsonb #>> '{origin,job_name}', '') AS name,
       i.status = 'STOPPED' AS stopped,
       extract(epoch FROM clock_timestamp()) - (t.body ->> 'timestamp')::float8 AS tick_seconds_ago,
       CASE WHEN t.status = 'FAILURE' THEN coalesce(t.body #>> '{error,message}', '') END AS failure
  FROM instigators i
  LEFT JOIN LATERAL (SELECT status, replace(tick_body, '\\u0000', '')::jsonb AS body FROM job_ticks
                      WHERE selector_id = i.selector_id AND status <> 'STARTED'
                      ORDER BY timestamp DESC LIMIT 1) t ON true
 WHERE i.instigator_type = 'SENSOR'
 ORDER BY 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SensorState:
    """`tick_seconds_ago` is None before the first tick; `failure` is the last tick's error."""

    name: str
    stopped: bool
    tick_seconds_ago: float | None
    failure: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DagsterState:
    """`daemon_alive`: every required daemon has a heartbeat within SILENT_SECONDS."""

    daemon_alive: bool
    sensors: tuple[SensorState, ...]

    @property
    def failing(self) -> tuple[SensorState, ...]:
        """Sensors whose last tick failed; none without a daemon: its last ticks are of the past."""
        return tuple(
            one
            for one in self.sensors
            if self.daemon_alive and one.failure is not None and not one.stopped
        )

    def sensor(self, name: str) -> SensorState:
        """Return the sensor of that name; without a tick if Dagster does not know it yet."""
        known = (one for one in self.sensors if one.name == name)
        return next(
            known, SensorState(name=name, stopped=False, tick_seconds_ago=None, failure=None)
        )


def read_dagster_state(url: str) -> DagsterState:
    """Return the state of the Dagster with that storage; without tables nothing is alive. Raises
    DatabaseUnavailable.
    """
    database = Database.connect(url, reconnect_seconds=0, session=PATIENCE)
    try:
        database.check()
        tables = database.transaction(lambda connection: rows(connection, TABLES))[0]
        if tables["found"] < tables["needed"]:
            return DagsterState(daemon_alive=False, sensors=())
        heartbeats = database.transaction(lambda connection: rows(connection, HEARTBEATS))
        sensors = database.transaction(lambda connection: rows(connection, SENSORS))
    finally:
        database.close()
    for row in sensors:
        if row["failure"] is not None:
            row["failure"] = "".join(str(row["failure"]).strip().splitlines()[:1])
    alive = {row["name"] for row in heartbeats if row["seconds_ago"] <= SILENT_SECONDS}
    return DagsterState(
        daemon_alive=alive.issuperset(DAEMONS), sensors=tuple(SensorState(**row) for row in sensors)
    )


def failing_sentence(sensor: SensorState) -> str:
    """One sensor whose last tick failed."""
    return f"The last tick of {sensor.name} failed: {sensor.failure or 'no reason is recorded'}"
