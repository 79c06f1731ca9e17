"""Format of log lines, text or JSON, with the batch, run, region and attempt as fields.

Control characters are removed from every line, because lines quote APIs and other libraries and
are read on terminals. Line feeds of messages and tracebacks stay.

`about` binds fields to the lines of a thread or task. Keys of APIs are never logged: messages do
not contain them (errors.py), and no other values are added.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

from mohe_assets.text.cleaning import without_controls

LOGGER = "mohe_assets"
TEXT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
TIME = "%Y-%m-%d %H:%M:%S %z"  # the format of Dagster's own lines
# The order of fields in a line; other bound fields follow.
FACTS = ("batch", "run_id", "region_code", "region_name", "round", "attempt")


Line = MutableMapping[str, Any]
Facts = Mapping[str, object]

_facts: ContextVar[Facts] = ContextVar("facts", default={})  # noqa: B039 - never written to


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """Add fields to every line logged inside, in this thread; other threads need a context copy."""
    token = _facts.set({**_facts.get(), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def install(log_format: str) -> None:
    """Log our warnings to stderr, in processes in which Dagster does not; may be called again."""
    logger = logging.getLogger(LOGGER)
    for former in [each for each in logger.handlers if isinstance(each, StderrHandler)]:
        logger.removeHandler(former)
    handler = StderrHandler(formatter(log_format))
    handler.setLevel(logging.WARNING)  # whatever level a library gives the root logger
    logger.addHandler(handler)


def claim_root(log_format: str) -> None:
    """Give the root logger a handler of ours, unless it has one: before a library does.

    `logging.warning("…")` in a library makes one that writes every line of every logger once more,
    and as text. Ours writes what no other handler has written.
    """
    root = logging.getLogger()
    if not root.handlers:
        handler = StderrHandler(formatter(log_format))
        handler.setLevel(logging.WARNING)
        handler.addFilter(_is_written_by_no_other)
        root.addHandler(handler)


def _is_written_by_no_other(record: logging.LogRecord) -> bool:
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if logger.handlers:
            return False
        logger = logger.parent if logger.propagate else None
    return True


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the `sys.stderr` of the moment a line is logged."""

    def __init__(self, form: logging.Formatter) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(form)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError(value)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The message and fields of records of another library.

    Text lines omit `hidden` fields, which the message contains.
    """

    message: Callable[[logging.LogRecord], str] = logging.LogRecord.getMessage
    facts: Callable[[logging.LogRecord], Facts] = lambda _record: {}
    hidden: frozenset[str] = frozenset()


def formatter(log_format: str, reading: Reading | None = None) -> logging.Formatter:
    """Return the formatter for a value of MOHE_LOG_FORMAT, text or json."""
    reading = reading or Reading()
    if log_format != "json":
        return _TextFormatter(reading)
    import structlog  # noqa: PLC0415 - takes 0.2 s, which text output need not

    def read(_logger: object, _method: str, line: Line) -> Line:
        record: logging.LogRecord = line["_record"]
        record.msg = line["event"]  # structlog's copy, formatted and without arguments
        return {**line, **_facts.get(), **reading.facts(record), "event": reading.message(record)}

    def in_order(_logger: object, _method: str, line: Line) -> Line:
        head = ("timestamp", "level", "logger", "message", *FACTS)
        first = [name for name in head if name in line]
        return {name: line[name] for name in (*first, *sorted(line.keys() - set(first)))}

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[read, structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            lambda _logger, _method, rendered: without_controls(str(rendered)),
        ],
    )


class _TextFormatter(logging.Formatter):
    def __init__(self, reading: Reading) -> None:
        super().__init__(TEXT, TIME)
        self._reading = reading

    def format(self, record: logging.LogRecord) -> str:
        return without_controls(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        line = super().formatMessage(record)
        facts = {**_facts.get(), **self._reading.facts(record)}
        ordered = [name for name in FACTS if name in facts]
        shown = [
            name
            for name in (*ordered, *sorted(facts.keys() - set(ordered)))
            if name not in self._reading.hidden
        ]
        text = " ".join(f"{name}={facts[name]}" for name in shown)
        return f"{line} [{text}]" if text else line
