"""Log lines of libraries: each once, in the format of MOHE_LOG_FORMAT."""

import json
import subprocess
import sys

# dagster_postgres logs a lost connection so, which makes `logging` configure itself.
SCRIPT = """
import logging
from mohe_assets import logs

logs.claim_root("{log_format}")
logs.install("{log_format}")
logging.warning("Retrying failed database connection: %s", "gone")
logging.getLogger("mohe_assets.store").warning("one of ours")
logging.getLogger("another.library").error("one of theirs")
logging.getLogger("another.library").info("not worth a line")
logs.claim_root("{log_format}")
logging.getLogger("mohe_assets.store").warning("after it")
"""
MESSAGES = [
    "Retrying failed database connection: gone",
    "one of ours",
    "one of theirs",
    "after it",
]


def printed(log_format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(log_format=log_format)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()


def test_json_lines_stay_json_after_a_library_has_logged_a_lost_connection() -> None:
    assert [json.loads(line)["message"] for line in printed("json")] == MESSAGES


def test_no_line_is_written_twice_as_text() -> None:
    assert [line.rpartition(" - ")[2] for line in printed("text")] == MESSAGES


def test_a_log_file_of_dagsters_own_processes_has_no_colours() -> None:
    script = (
        "import logging\n"
        "from mohe_assets.defs.runtime.console_logger import use_for_processes\n"
        "from dagster._utils.log import configure_loggers\n"
        "use_for_processes()\n"
        "configure_loggers()\n"
        "logging.getLogger('dagster').error('an error')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "an error" in done.stdout
    assert "\x1b" not in done.stdout
