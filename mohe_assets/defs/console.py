"""What a run prints: Dagster's lines and ours in one stream, in the format of MOHE_LOG_FORMAT, with region and attempt.

Dagster takes a logger of one's own from a run's config only, which runs launched by a backfill or from an asset's page do
not have. So its default one is exchanged, for runs of whatever origin; the event log is not touched.
"""

import logging

import dagster as dg
from dagster import _loggers as dagster_loggers
from dagster._core.log_manager import LOG_RECORD_METADATA_ATTR

from mohe_assets import logs, settings
from mohe_assets.regions import code_of_partition_key

# Said by the text of Dagster's lines already.
_IN_DAGSTERS_TEXT = frozenset({"run_id"})


@dg.logger({"name": dg.Field(str, default_value="dagster"), "log_level": dg.Field(str, default_value="DEBUG")})
def console(init: dg.InitLoggerContext) -> logging.Logger:
    """Stands in for Dagster's colored_console_logger, takes its config, and is as much a logger of its own for each run."""
    logger = logging.Logger(str(init.logger_config["name"]), level=init.logger_config["log_level"])  # noqa: LOG001
    formatter = logs.formatter(settings.log_format(), also=[_of_dagster], hidden=_IN_DAGSTERS_TEXT)
    logger.addHandler(logs.StderrHandler(formatter))
    return logger


def use_for_runs() -> None:
    """From now on, in this process; twice is as good as once."""
    dagster_loggers.colored_console_logger = console


def _of_dagster(_logger: object, _method: str, line: logs.Line) -> logs.Line:
    """The facts of a line of Dagster's that its text has in front: which run, job and step, which event, which partition."""
    meta = getattr(line["_record"], LOG_RECORD_METADATA_ATTR, None) or {}
    event = meta.get("dagster_event")
    facts = {
        "run_id": meta.get("run_id"),
        "job": meta.get("job_name"),
        "step": meta.get("step_key"),
        "dagster_event": event.event_type_value if event else None,
        "partition": event.partition if event else None,
    }
    facts = {name: value for name, value in facts.items() if value}
    if partition := facts.get("partition"):
        facts["region_code"] = code_of_partition_key(str(partition))
    if meta and not (event and event.is_failure):
        line["event"] = meta["orig_message"]  # a failure's has its error behind the prefix
    return {**facts, **line}
