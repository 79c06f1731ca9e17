"""How log lines look: as text or as JSON, each with the batch, run, region and attempt it is about.

Control characters are removed from every line, in text and in JSON: a line may quote what an API or
another library wrote, and is read on terminals. A message of several lines, like a traceback, stays
one.

The facts are bound by whoever knows them, with `about`, and are added to every line of the thread
meanwhile. No key can be among them: messages hold none (errors.py), and nothing else is added.
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
TIME = "%Y-%m-%d %H:%M:%S %z"  # as Dagster's own lines have it
# Their order in a line; whatever else is bound comes after them.
FACTS = ("batch", "run_id", "region_code", "region_name", "round", "attempt")


Line = MutableMapping[str, Any]
Facts = Mapping[str, object]

_facts: ContextVar[Facts] = ContextVar("facts", default={})  # noqa: B039 - never written to


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """Every line logged inside, in this thread, carries these facts. Threads started inside need a
    copy of the context.
    """
    token = _facts.set({**_facts.get(), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def install(log_format: str) -> None:
    """Sends our warnings to this process's stderr. For processes in which Dagster does not do it;
    again replaces the first.
    """
    logger = logging.getLogger(LOGGER)
    for handler in [one for one in logger.handlers if isinstance(one, StderrHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(StderrHandler(formatter(log_format)))


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever stderr is when a line is logged."""

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
    """What a record of another library says besides its text. Text leaves `hidden` facts out: its
    message has them.
    """

    message: Callable[[logging.LogRecord], str] = logging.LogRecord.getMessage
    facts: Callable[[logging.LogRecord], Facts] = lambda _record: {}
    hidden: frozenset[str] = frozenset()


def formatter(log_format: str, reading: Reading | None = None) -> logging.Formatter:
    """The formatter of MOHE_LOG_FORMAT."""
    reading = reading or Reading()
    return _json_formatter(reading) if log_format == "json" else _TextFormatter(reading)


def _json_formatter(reading: Reading) -> logging.Formatter:
    import structlog  # noqa: PLC0415 - takes a fifth of a second, which `mohe status` has better uses for

    def read(_logger: object, _method: str, line: Line) -> Line:
        record: logging.LogRecord = line["_record"]
        record.msg = line["event"]  # it is structlog's copy, and its arguments are gone
        return {**line, **_facts.get(), **reading.facts(record), "event": reading.message(record)}

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[read, structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            lambda _logger, _method, rendered: without_controls(str(rendered)),
        ],
    )


def _in_order(_logger: object, _method: str, line: Line) -> Line:
    first = [name for name in ("timestamp", "level", "logger", "message", *FACTS) if name in line]
    return {name: line[name] for name in (*first, *sorted(line.keys() - set(first)))}


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
