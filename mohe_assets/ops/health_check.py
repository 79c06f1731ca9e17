"""`python -m mohe_assets.ops.health_check`: check a container's process at little cost.

Dagster's own checks load all of Dagster, more than a second and 86 MiB every half minute, while
runs need the memory. These checks load only gRPC or the database's driver.
"""

import os
import sys
from collections.abc import Callable, Sequence

# grpc.health.v1: HealthCheckRequest with service "DagsterApi", and HealthCheckResponse SERVING.
REQUEST, SERVING = b"\x0a\x0aDagsterApi", b"\x08\x01"
SECONDS = 5
# Each of Dagster's daemons writes its heartbeat every half minute, and after each round of work.
SILENT_SECONDS = 300
SILENT = f"""
SELECT daemon_type FROM unnest(ARRAY['SENSOR', 'QUEUED_RUN_COORDINATOR', 'BACKFILL']) AS daemon_type
 WHERE NOT EXISTS (SELECT 1 FROM daemon_heartbeats h WHERE h.daemon_type = daemon_type.daemon_type
                      AND h.timestamp > (now() AT TIME ZONE 'UTC')
                                        - interval '{SILENT_SECONDS} seconds')
 ORDER BY 1
"""


def code_server(address: str) -> str | None:
    """Return why the code server at `host:port` does not serve, or None if it does."""
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415 - each check loads its own library only

    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = check(REQUEST, timeout=SECONDS)
        except grpc.RpcError as error:
            return f"the code server at {address} does not answer: {error.details()}"
    return None if answer == SERVING else f"the code server at {address} does not serve"


def daemon(url: str) -> str | None:
    """Return which of Dagster's daemons are silent, or None if all write their heartbeats."""
    import psycopg2  # noqa: PLC0415 - as above

    try:
        connection = psycopg2.connect(url, connect_timeout=SECONDS)
    except psycopg2.OperationalError as error:
        return f"Dagster's database cannot be reached: {error}"
    try:
        with connection.cursor() as cursor:
            cursor.execute(SILENT)
            silent = [row[0] for row in cursor.fetchall()]
    finally:
        connection.close()
    return f"no heartbeat for {SILENT_SECONDS} s: {', '.join(silent)}" if silent else None


CHECKS: dict[str, Callable[[str], str | None]] = {"code-server": code_server, "daemon": daemon}


def main(arguments: Sequence[str]) -> int:
    """Check `code-server host:port`, or `daemon`, which reads MOHE_DAGSTER_DATABASE_URL."""
    kind, *rest = arguments
    reason = CHECKS[kind](rest[0] if rest else os.environ["MOHE_DAGSTER_DATABASE_URL"])
    if reason is not None:
        sys.stderr.write(f"{reason}\n")
    return 0 if reason is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
