"""Dagster's code server, the process in which runs execute, with one difference: it passes SIGTERM on to its runs.

Dagster's own waits for its runs to finish by themselves, so that `docker stop` would kill them in the middle, holding their
regions. Told to stop, a run releases its regions and ends within seconds, and the server with it.
"""

import signal
import sys
from types import FrameType

import psutil
from dagster._cli.api import grpc_command

from mohe_assets import logs, settings


def main() -> None:
    """Serves `mohe_assets.definitions`; the arguments are those of `dagster api grpc`."""
    logs.install(settings.log_format())
    # Dagster gives SIGTERM whatever handler SIGINT has when it starts.
    signal.signal(signal.SIGINT, _stop)
    grpc_command.main(args=["-m", "mohe_assets.definitions", *sys.argv[1:]], prog_name="code-server")


def _stop(number: int, _: FrameType | None) -> None:
    # Ctrl-C reaches the runs by itself: a terminal signals everybody. A second signal would interrupt their cleaning up.
    if number == signal.SIGTERM:
        for run in psutil.Process().children():
            run.send_signal(signal.SIGTERM)
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
