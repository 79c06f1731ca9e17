"""What a run prints: Dagster's lines and ours in one stream, in the format of MOHE_LOG_FORMAT, with
region and attempt.

Dagster takes a logger of one's own from a run's config only, which runs launched by a backfill or
from an asset's page do not have. So its default one is exchanged, for runs of whatever origin; the
event log is not touched.
"""

import copy
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import dagster as dg

from mohe_assets import logs, settings
from mohe_assets.defs.runtime.dagster_internals import (
    LOG_RECORD_METADATA_ATTR,
    DagsterLogHandler,
    has_log_record_event,
    use_console_logger,
    use_process_formatter,
)
from mohe_assets.domain.regions import code_of_partition_key
from mohe_assets.store.sqlstate import trouble

STOPPED = "The run was stopped: its regions are released, and the next run continues."


@dg.logger(
    {
        "name": dg.Field(str, default_value="dagster"),
        "log_level": dg.Field(str, default_value="DEBUG"),
    }
)
def console(init: dg.InitLoggerContext) -> logging.Logger:
    """Stands in for Dagster's colored_console_logger, takes its config, and is as much a logger of
    its own for each run.
    """
    logger = logging.Logger(str(init.logger_config["name"]), level=init.logger_config["log_level"])  # noqa: LOG001
    logger.addHandler(_RunHandler(logs.formatter(settings.log_format(), DAGSTERS)))
    return logger


def use_for_runs() -> None:
    """From now on, in this process; twice is as good as once."""
    use_console_logger(console)
    logs.claim_root(settings.log_format())


def use_for_processes() -> None:
    """Write the lines that Dagster's own processes have of themselves without colours, unless a
    terminal shows them: a log file is read by other programs, too.
    """
    logs.claim_root(settings.log_format())
    if not sys.stdout.isatty():
        use_process_formatter(_PlainFormatter)


class _PlainFormatter(logging.Formatter):
    def __init__(self, fmt: str, datefmt: str, **_styles: object) -> None:
        super().__init__(fmt, datefmt)


class _RunHandler(logs.StderrHandler):
    """Writes one sentence for a run that was stopped, where Dagster has the same traceback twice."""

    def emit(self, record: logging.LogRecord) -> None:
        event = _event_of_a_stop(record)
        if event is None:
            super().emit(record)
        elif event.event_type is not dg.DagsterEventType.STEP_FAILURE:
            line, meta = copy.copy(record), getattr(record, LOG_RECORD_METADATA_ATTR)
            line.levelno, line.levelname = logging.WARNING, "WARNING"
            line.msg, line.args = f"{meta['job_name']} - {meta['run_id']} - {STOPPED}", ()
            super().emit(line)


def _event_of_a_stop(record: logging.LogRecord) -> dg.DagsterEvent | None:
    meta = getattr(record, LOG_RECORD_METADATA_ATTR, None)
    event: dg.DagsterEvent | None = meta["dagster_event"] if meta else None
    error = getattr(event.event_specific_data, "error", None) if event else None
    return (
        event if error and error.cls_name == dg.DagsterExecutionInterruptedError.__name__ else None
    )


@contextmanager
def lines_without_storage() -> Iterator[None]:
    """Keep our log lines from failing inside a run where Dagster cannot store them as events.

    Dagster raises from whatever thread logs: a retry that logs why it waits would end by that, and
    a region would be charged. The line is on the console by then. Dagster's own events do raise.
    """
    attached = logging.getLogger(logs.LOGGER).handlers
    handlers = [one for one in attached if isinstance(one, DagsterLogHandler)]
    for handler in handlers:
        setattr(handler, "emit", partial(_emit, handler.emit))  # noqa: B010 - of this one handler
    try:
        yield
    finally:
        for handler in handlers:
            delattr(handler, "emit")


def _emit(emit: Callable[[logging.LogRecord], object], record: logging.LogRecord) -> None:
    try:
        emit(record)
    except Exception as error:
        if has_log_record_event(record) or trouble(error) is None:
            raise


def _message(record: logging.LogRecord) -> str:
    """Without the run, job and step that Dagster's text has in front; a failure has its error
    behind them.
    """
    if _event_of_a_stop(record) is not None:
        return STOPPED
    meta = getattr(record, LOG_RECORD_METADATA_ATTR, None)
    if not meta or (meta["dagster_event"] and meta["dagster_event"].is_failure):
        return record.getMessage()
    return str(meta["orig_message"])


def _facts(record: logging.LogRecord) -> logs.Facts:
    """Which run, job and step a line is of, which event it tells, and which region that is about."""
    meta = getattr(record, LOG_RECORD_METADATA_ATTR, None) or {}
    event: dg.DagsterEvent | None = meta.get("dagster_event")
    facts = {
        "run_id": meta.get("run_id"),
        "job": meta.get("job_name"),
        "step": meta.get("step_key"),
        "dagster_event": event.event_type_value if event else None,
        **(_region(event) if event else {}),
    }
    return {name: value for name, value in facts.items() if value}


def _region(event: dg.DagsterEvent) -> logs.Facts:
    """What defs/metadata.py has put into the event of a region."""
    if not event.partition:
        return {}
    data = event.event_specific_data
    said = getattr(data, "materialization", None) or getattr(data, "asset_observation", None)
    metadata = said.metadata if said else {}
    named = {"region_name": "region", "round": "round", "attempt": "attempt"}
    found = {name: metadata[key].value for name, key in named.items() if key in metadata}
    return {
        "partition": event.partition,
        "region_code": code_of_partition_key(event.partition),
        **found,
    }


# What the text of Dagster's lines says already, or says with the region's code, is not said again
# behind it.
DAGSTERS = logs.Reading(
    message=_message,
    facts=_facts,
    hidden=frozenset({"run_id", "job", "step", "dagster_event", "partition"}),
)
