"""Dagster's code server, the process that starts runs, with one difference: it passes SIGTERM on
to its runs.

Dagster's own server waits until its runs end, so `docker stop` would kill them while they hold
regions. On SIGTERM, a run releases its regions and ends within seconds, and then the server ends.
"""

import contextlib
import datetime as dt
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from types import FrameType

import dagster as dg
import psutil
from sqlalchemy.exc import DBAPIError

from mohe_assets import logs, settings
from mohe_assets.app import App
from mohe_assets.collection.stop_timeouts import (
    CODE_SERVER_CANCEL_SECONDS,
    CODE_SERVER_STOP_SECONDS,
)
from mohe_assets.defs.runtime import console_logger, recovery
from mohe_assets.defs.runtime.dagster_internals import serve_code
from mohe_assets.errors import MoheError

log = logging.getLogger(__name__)


def main() -> None:
    """Serve `mohe_assets.definitions`; the arguments are those of `dagster api grpc`."""
    logs.install(settings.log_format())
    console_logger.use_for_processes()
    recovery.THIS_CODE_SERVER.started_at = dt.datetime.now(dt.UTC)
    # Dagster gives SIGTERM the handler that SIGINT has at its start.
    signal.signal(signal.SIGINT, _stop)
    serve_code(["-m", "mohe_assets.definitions", *sys.argv[1:]])


def _stop(number: int, _: FrameType | None) -> None:
    # On Ctrl-C, the terminal signals the runs as well.
    if number == signal.SIGTERM and not recovery.STOPPING.is_set():
        recovery.STOPPING.set()
        threading.Thread(target=_end_runs, daemon=True).start()
    raise KeyboardInterrupt


def _end_runs() -> None:
    """Signal each run exactly once, since a second signal would interrupt its cleanup.

    The loop also signals runs that are still starting. Dagster waits for all of them, and for calls
    such as a sensor's tick. Processes that are still alive at the deadline hold no region: runs
    that were importing, and ticks. Recovery treats their end as any other death.
    """
    cancelling = threading.Thread(target=_cancel_what_has_not_begun, daemon=True)
    if psutil.Process().children():
        cancelling.start()
        cancelling.join(CODE_SERVER_CANCEL_SECONDS)
    itself, signalled = psutil.Process(), set[int]()
    deadline = time.monotonic() + CODE_SERVER_STOP_SECONDS
    while time.monotonic() < deadline:
        for run in itself.children():
            if run.pid not in signalled:
                signalled.add(run.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    run.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    for left in itself.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    os._exit(1)


def _cancel_what_has_not_begun() -> None:
    try:
        with (
            App.attached(settings.load()) as app,
            dg.DagsterInstance.get() as instance,
        ):
            recovery.end_what_has_not_begun(
                instance, replace(app, database=replace(app.database, reconnect_seconds=0))
            )
    except (MoheError, DBAPIError, dg.DagsterError) as error:
        # They end anyway; the UI may show runs that had just been launched as failed.
        log.warning("Runs that have not begun could not be cancelled: %s", error)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a run, which multiprocessing starts as a copy of this module
    logs.claim_root(settings.log_format())
