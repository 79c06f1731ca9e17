"""Dagster's daemon, with log lines as our other processes have them."""

from dagster._daemon import cli

from mohe_assets.defs.runtime import console_logger


def main() -> None:
    """Run the daemon; the arguments are those of `dagster-daemon`."""
    console_logger.use_for_processes()
    cli.main()


if __name__ == "__main__":
    main()
