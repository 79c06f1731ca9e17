"""The console lines of a run: Dagster's and ours in one stream, in the format of MOHE_LOG_FORMAT,
with region and attempt.

The logger replaces Dagster's default, see `dagster_internals.use_console_logger`. Dagster's event
log stays as it is.
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
    """Replace Dagster's colored_console_logger, with the same config and a new logger per run."""
    logger = logging.Logger(str(init.logger_config["name"]), level=init.logger_config["log_level"])  # noqa: LOG001
    logger.addHandler(_RunHandler(logs.formatter(settings.log_format(), DAGSTERS)))
    return logger


def use_for_runs() -> None:
    """Print the runs of this process by `console` from now on; can be called again."""
    use_console_logger(console)
    logs.claim_root(settings.log_format())


def use_for_processes() -> None:
    """Write the log lines of Dagster's own processes without colours, except on a terminal.

    Other programs read a log file.
    """
    logs.claim_root(settings.log_format())
    if not sys.stdout.isatty():
        use_process_formatter(_PlainFormatter)


class _PlainFormatter(logging.Formatter):
    def __init__(self, fmt: str, datefmt: str, **_styles: object) -> None:
        super().__init__(fmt, datefmt)


class _RunHandler(logs.StderrHandler):
    """Write a sentence for a stopped run, where Dagster writes the same traceback twice."""

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
    """Keep our log lines from raising where Dagster cannot store them as events.

    Dagster raises in the thread that logs: a retry that logs its wait would end, and count as a
    failure of its region. The line is on the console by then. Dagster's own events still raise.
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
    """Return the text without Dagster's prefix of run, job and step; failures keep it."""
    if _event_of_a_stop(record) is not None:
        return STOPPED
    meta = getattr(record, LOG_RECORD_METADATA_ATTR, None)
    if not meta or (meta["dagster_event"] and meta["dagster_event"].is_failure):
        return record.getMessage()
    return str(meta["orig_message"])


def _facts(record: logging.LogRecord) -> logs.Facts:
    """Return run, job, step and event of a line, and the region that the event is about."""
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
    """Return the metadata that events.py has added to the event of a region."""
    if not event.partition:
        return {}
    data = event.event_specific_data
    entry = getattr(data, "materialization", None) or getattr(data, "asset_observation", None)
    metadata = entry.metadata if entry else {}
    named = {"region_name": "region", "round": "round", "attempt": "attempt"}
    found = {name: metadata[key].value for name, key in named.items() if key in metadata}
    return {
        "partition": event.partition,
        "region_code": code_of_partition_key(event.partition),
        **found,
    }


# The facts in `hidden` are part of the text of Dagster's lines and are not repeated after it.
DAGSTERS = logs.Reading(
    message=_message,
    facts=_facts,
    hidden=frozenset({"run_id", "job", "step", "dagster_event", "partition"}),
)
