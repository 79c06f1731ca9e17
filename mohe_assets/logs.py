"""How log lines look: as text or as JSON, each with the batch, run, region and attempt it is about.

The facts are bound by whoever knows them, with `about`, and are added to every line of the thread meanwhile. No key can be
among them: messages hold none (errors.py), and nothing else is added.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

LOGGER = "mohe_assets"
TEXT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
TIME = "%Y-%m-%d %H:%M:%S %z"  # as Dagster's own lines have it
# Their order in a line; whatever else is bound comes after them.
FACTS = ("batch", "run_id", "region_code", "region_name", "round", "attempt")


Line = MutableMapping[str, Any]
# What structlog calls a processor: logger, method, line → line.
Processor = Callable[[Any, str, Line], Line]

_facts: ContextVar[Mapping[str, object]] = ContextVar("facts", default={})  # noqa: B039 - never written to


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """Every line logged inside, in this thread, carries these facts. Threads started inside need a copy of the context."""
    token = _facts.set({**_facts.get(), **facts})
    try:
        yield
    finally:
        _facts.reset(token)


def install(log_format: str) -> None:
    """Sends our warnings to this process's stderr. For processes in which Dagster does not do it; again replaces the first."""
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


def formatter(log_format: str, *, also: Iterable[Processor] = (), hidden: frozenset[str] = frozenset()) -> logging.Formatter:
    """The formatter of MOHE_LOG_FORMAT. `also` adds to a JSON line; text leaves `hidden` facts out, being in its message."""
    return _json_formatter(also) if log_format == "json" else _TextFormatter(hidden)


def _json_formatter(also: Iterable[Processor]) -> logging.Formatter:
    import structlog  # noqa: PLC0415 - takes a fifth of a second, which `mohe status` has better uses for

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_add_facts, structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, *also],
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.EventRenamer("message"),
            _in_order,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
    )


def _add_facts(_logger: object, _method: str, line: Line) -> Line:
    return {**_facts.get(), **line}


def _in_order(_logger: object, _method: str, line: Line) -> Line:
    first = [name for name in ("timestamp", "level", "logger", "message", *FACTS) if name in line]
    return {name: line[name] for name in (*first, *sorted(line.keys() - set(first)))}


class _TextFormatter(logging.Formatter):
    def __init__(self, hidden: frozenset[str]) -> None:
        super().__init__(TEXT, TIME)
        self._hidden = hidden

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        line = super().formatMessage(record)
        facts = {name: value for name, value in _facts.get().items() if name not in self._hidden}
        ordered = [name for name in FACTS if name in facts]
        text = " ".join(f"{name}={facts[name]}" for name in (*ordered, *sorted(facts.keys() - set(ordered))))
        return f"{line} [{text}]" if text else line
