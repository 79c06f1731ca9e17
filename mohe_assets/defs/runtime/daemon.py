"""Dagster's daemon, with log lines as our other processes have them."""

from mohe_assets.defs.runtime import console_logger
from mohe_assets.defs.runtime.dagster_internals import run_daemon


def main() -> None:
    """Run the daemon; the arguments are those of `dagster-daemon`."""
    console_logger.use_for_processes()
    run_daemon()


if __name__ == "__main__":
    main()
