"""Every private name of Dagster that this package uses, in one place.

A release of Dagster may drop or change any of them, which is why `pyproject.toml` bounds its
version. Each entry has its reason and the test that notices a loss; ruff refuses private imports
everywhere else in the package.
"""

import logging
from collections.abc import Callable, Sequence

import dagster as dg
from dagster import _loggers

# The class that `define_asset_job` returns, for an annotation; Dagster exports only the function.
# Test: unit/test_definitions.py::test_the_public_surface_is_as_other_people_know_it
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

# Plan a partition in a run of our choice, which decides whether the partition is red, and mark
# events that are stored together: one by one, each opens two connections.
# Tests: dagster_ui/test_reconciliation.py::test_never_tried_it_is_missing_again, dagster_ui/
# test_places_runs.py::test_every_region_is_materialized_by_itself_and_says_what_was_found
from dagster._core.events import AssetMaterializationPlannedData, DagsterEventBatchMetadata

# Finds the unfinished backfills, whose partition keys and runs stay.
# Test: dagster_ui/test_retention.py::test_runs_of_a_backfill_that_is_under_way_stay
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

# The run id and job name that stand for "no run" in an event.
# Test: dagster_ui/test_reconciliation.py::test_never_tried_it_is_missing_again
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

# Read run, job, step and event of a log record, and find the handler that stores log lines.
# Test: recovery/test_logs.py::test_a_run_prints_json_lines_that_say_region_and_attempt
from dagster._core.log_manager import (
    LOG_RECORD_METADATA_ATTR,
    DagsterLogHandler,
    has_log_record_event,
)

# Which statuses of a run are final.
# Tests: dagster_ui/test_retention.py::test_a_failed_run_stays_while_its_partition_is_red,
# dagster_ui/test_sensor.py::test_runs_under_way_take_their_share_of_the_room
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

# A query for the runs behind the UI's pages, which Dagster has no function for.
# Test: dagster_ui/test_retention.py::test_a_failed_run_stays_while_its_partition_is_red
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

# The tags by which Dagster itself marks runs.
# Test: dagster_ui/test_places_runs.py::test_a_re_execution_does_only_what_its_lineage_has_left
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    BACKFILL_ID_TAG,
    PARTITION_NAME_TAG,
    ROOT_BACKFILL_ID_TAG,
    ROOT_RUN_ID_TAG,
    SCHEDULE_NAME_TAG,
)

# An id in Dagster's form, for a run that records failures and for a batch of events.
# Test: dagster_ui/test_refining.py, and dagster_ui/test_reconciliation.py::
# test_a_failure_whose_run_is_forgotten_is_shown_by_a_run_recorded_for_it_once
from dagster._core.utils import make_new_run_id

# An argument of the constructor of every class that dagster.yaml names.
# Test: integration/test_plain_dagster.py::test_dg_checks_lists_and_launches
from dagster._serdes import ConfigurableClassData

# The module whose coloured formatter Dagster's processes use.
# Test: unit/test_logs.py, test_a_log_file_of_dagsters_own_processes_has_no_colours
from dagster._utils import log as _log

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "BACKFILL_ID_TAG",
    "FINISHED_STATUSES",
    "LOG_RECORD_METADATA_ATTR",
    "NOT_FINISHED_STATUSES",
    "PARTITION_NAME_TAG",
    "ROOT_BACKFILL_ID_TAG",
    "ROOT_RUN_ID_TAG",
    "RUNLESS_JOB_NAME",
    "RUNLESS_RUN_ID",
    "SCHEDULE_NAME_TAG",
    "AssetMaterializationPlannedData",
    "BulkActionStatus",
    "BulkActionsFilter",
    "ConfigurableClassData",
    "DagsterEventBatchMetadata",
    "DagsterLogHandler",
    "SqlEventLogStorage",
    "UnresolvedAssetJobDefinition",
    "has_log_record_event",
    "make_new_run_id",
    "run_daemon",
    "serve_code",
    "use_console_logger",
    "use_process_formatter",
]


def use_console_logger(logger: dg.LoggerDefinition) -> None:
    """Let all runs of this process print through `logger`.

    Dagster takes a logger from a run's config only, which runs launched by a backfill or from an
    asset's page do not have; without one it uses this default.

    Test: recovery/test_logs.py::test_a_run_prints_json_lines_that_say_region_and_attempt
    """
    _loggers.colored_console_logger = logger


def serve_code(arguments: Sequence[str]) -> None:
    """Run the command `dagster api grpc`; the code server adds its own handling of SIGTERM.

    Test: recovery/test_code_server.py
    """
    # Not at the top: a run needs none of its modules.
    from dagster._cli.api import grpc_command  # noqa: PLC0415

    grpc_command.main(args=list(arguments), prog_name="code-server")


def use_process_formatter(formatter: Callable[..., logging.Formatter]) -> None:
    """Let Dagster format the log lines of its own processes with this class.

    Test: unit/test_logs.py::test_a_log_file_of_dagsters_own_processes_has_no_colours
    """
    _log.coloredlogs.ColoredFormatter = formatter  # type: ignore[attr-defined]


def run_daemon() -> None:
    """Run the command `dagster-daemon`.

    Test: dagster_ui/test_up.py
    """
    from dagster._daemon import cli  # noqa: PLC0415 - only for the daemon

    cli.main()
