"""Dagster's code server, the process in which runs execute, with one difference: it passes SIGTERM
on to its runs.

Dagster's own waits for its runs to finish by themselves, so that `docker stop` would kill them in
the middle, holding their regions. Told to stop, a run releases its regions and ends within seconds,
and the server with it.
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
    """Serves `mohe_assets.definitions`; the arguments are those of `dagster api grpc`."""
    logs.install(settings.log_format())
    console_logger.use_for_processes()
    recovery.THIS_CODE_SERVER.started_at = dt.datetime.now(dt.UTC)
    # Dagster gives SIGTERM whatever handler SIGINT has when it starts.
    signal.signal(signal.SIGINT, _stop)
    serve_code(["-m", "mohe_assets.definitions", *sys.argv[1:]])


def _stop(number: int, _: FrameType | None) -> None:
    # Ctrl-C reaches the runs by itself: a terminal signals everybody.
    if number == signal.SIGTERM and not recovery.STOPPING.is_set():
        recovery.STOPPING.set()
        threading.Thread(target=_end_runs, daemon=True).start()
    raise KeyboardInterrupt


def _end_runs() -> None:
    """Tells each run once: a second signal would interrupt its cleaning up. One that was just being
    started is told, too.

    Dagster waits for all of them, and for calls such as a sensor's tick. What is not over in time
    has nothing to release: a run that was still importing, a tick. Their end is noticed like any
    other death.
    """
    cancelling = threading.Thread(target=_cancel_what_has_not_begun, daemon=True)
    if psutil.Process().children():
        cancelling.start()
        cancelling.join(CODE_SERVER_CANCEL_SECONDS)
    itself, told, deadline = (
        psutil.Process(),
        set[int](),
        time.monotonic() + CODE_SERVER_STOP_SECONDS,
    )
    while time.monotonic() < deadline:
        for run in itself.children():
            if run.pid not in told:
                told.add(run.pid)
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
        # They end all the same; the page may show those that had just been launched as failed.
        log.warning("Runs that have not begun cannot be cancelled: %s", error)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a run, which multiprocessing starts as a copy of this module
    logs.claim_root(settings.log_format())
