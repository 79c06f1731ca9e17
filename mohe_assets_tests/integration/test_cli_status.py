"""`mohe status`: the state of a collection, for people and for scripts."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.cli import demo, status
from mohe_assets.cli.status import JSON
from mohe_assets.domain.regions import bundled_snapshot
from mohe_assets.store.api_state import ApiAccount
from mohe_assets.store.database import Database
from mohe_assets.store.executions import Ending
from mohe_assets_tests.support.commands import Mohe
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.processes import until
from mohe_assets_tests.support.stores import Store, place

DOCS = Path(__file__).parents[2] / "docs"


def test_json_has_what_a_script_needs_and_fits_the_published_schema(
    mohe: Mohe, store: Store
) -> None:
    store.executions.start("run", total=2)
    lease = store.claim("11680")
    store.store(lease, 0, [place("a"), place("b")], calls=2)
    store.fail(lease, final=True)
    store.complete(store.claim("11110"))
    store.executions.finish("run", Ending.FAILED, "why")

    done = mohe("status", "--json", MOHE_SEARCH_KEYWORDS="카페,공원")

    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    jsonschema.validate(found, json.loads((DOCS / "status.schema.json").read_text("utf-8")))
    assert found["progress"] == {
        "total": 6, "completed": 1, "failed": 1, "processing": 0, "refining": 0, "pending": 4,
        "given_up": 1, "next_retry_at": None,
    }  # fmt: skip
    overview = found["overview"]
    assert (overview["places"], overview["searches"], overview["calls"]) == (2, 3, 4)
    assert [one["error_message"] for one in overview["failures"]] == ["HTTP 500"]
    assert [(one["execution_id"], one["life"], one["note"]) for one in overview["runs"]] == [
        ("run", "ended", "why")
    ]
    assert (
        found["api"]["used_today"],
        found["api"]["blocked_why"],
        found["api"]["closed_until"],
    ) == (0, None, None)
    # Of 6 regions with two keywords each, one is complete, and one that nothing tries again has one
    # of them.
    assert (found["left"]["base_plan"]["calls"], found["left"]["base_plan"]["days"]) == (8, 1)
    assert found["given_up"] == {"regions": 1, "calls": 1, "refinements": 0}
    assert found["waits_for"] is None


def test_an_api_that_is_unavailable_is_named_with_its_reason_and_its_next_probe(
    mohe: Mohe, store: Store, environment: Environment
) -> None:
    settings = settings_module.load(environment)
    with App.open(settings) as app:
        row = {**app.account.key, "reason": "HTTP 503 [/x]"}
    store.execute(
        """INSERT INTO api_budget (api, account, unavailable_since, unavailable_reason,
             unavailable_for, next_probe_at)
           VALUES (:api, :account, now(), :reason, :service, now() + interval '4 minutes')""",
        **{name: value for name, value in row.items() if name != "credentials"},
    )
    shown = mohe("status").out
    for words in (
        "UNAVAILABLE since",
        "HTTP 503 [/x]",
        "next probe",
        "none is made now: the API is unavailable",
    ):
        assert words in shown
    found = json.loads(mohe("status", "--json").out)
    assert found["waits_for"] == "the API is unavailable"
    assert (found["api"]["unavailable_reason"], found["api"]["probe_is_due"]) == (
        "HTTP 503 [/x]",
        False,
    )
    assert "the API is unavailable" in mohe("plan").out
    store.execute("UPDATE api_budget SET unavailable_for = 'other credentials or another address'")
    assert json.loads(mohe("status", "--json").out)["api"]["unavailable_since"] is None


def test_the_published_schema_is_what_the_command_prints_by() -> None:
    published = json.loads((DOCS / "status.schema.json").read_text("utf-8"))
    assert published == JSON.json_schema(mode="serialization"), (
        "write docs/status.schema.json anew, see docs/status.md"
    )


def test_the_page_about_it_names_every_field_and_no_other() -> None:
    schema = JSON.json_schema(mode="serialization")
    fields = {name for one in (schema, *schema["$defs"].values()) for name in one["properties"]}
    page = (DOCS / "status.md").read_text("utf-8")
    named = {
        line.split("`")[1].rpartition(".")[2].removesuffix("[]")
        for line in page.splitlines()
        if line.startswith("| `")
    }
    assert named == fields


def test_the_rate_is_that_of_the_last_minute(mohe: Mohe, store: Store) -> None:
    store.complete(store.claim("11110"))  # its answers are of two days ago
    store.execute("UPDATE search_query SET answered_at = now() - interval '2 days'")
    assert json.loads(mohe("status", "--json").out)["overview"]["rate"]["calls"] == 0
    assert "no call was answered in the last 60 s; last answer" in mohe("status").out

    store.execute("UPDATE search_query SET answered_at = now() - interval '5 seconds', calls = 30")
    rate = json.loads(mohe("status", "--json").out)["overview"]["rate"]
    assert (rate["calls"], rate["seconds"]) == (60, 60.0)
    assert "1.0 calls a second in the last 60 s; 5000 are allowed" in mohe("status").out

    store.executions.start("run")  # nothing before the run that works now belongs to its rate
    store.execute("UPDATE batch_execution_metadata SET start_time = now() - interval '20 seconds'")
    rate = json.loads(mohe("status", "--json").out)["overview"]["rate"]
    assert rate["calls"] == 60
    assert 20 <= rate["seconds"] < 40


def test_runs_are_alive_silent_or_ended_and_none_that_goes_on_is_left_out(
    mohe: Mohe, store: Store
) -> None:
    for name in ("alive", "silent", *(f"ended-{number}" for number in range(6))):
        store.executions.start(name)
    store.execute(
        "UPDATE batch_execution_metadata SET status = 'COMPLETED' WHERE execution_id LIKE 'ended%'"
    )
    store.execute(
        "UPDATE batch_execution_metadata SET heartbeat_at = now() - interval '61 seconds',"
        " start_time = now() - interval '9 days' WHERE execution_id = 'silent'"
    )
    runs = json.loads(mohe("status", "--json").out)["overview"]["runs"]
    lives = {run["execution_id"]: run["life"] for run in runs}
    assert (lives["alive"], lives["silent"], list(lives.values()).count("ended")) == (
        "alive",
        "silent",
        5,
    )
    out = mohe("status").out
    assert "1 alive, 1 stale (no heartbeat within the lease)" in out
    assert "mohe release" in out


def test_the_table_shows_failures_and_what_to_do_about_them(mohe: Mohe, store: Store) -> None:
    store.fail(store.claim("11680"), final=True)
    done = mohe("status")
    assert done.status == 0
    assert "0 of 6 completed, 0 in progress, 5 pending, 1 failed" in done.out
    assert "HTTP 500" in done.out
    assert "mohe retry 11680" in done.out


def test_no_name_is_cut_in_a_window_of_80_columns(
    mohe: Mohe, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max((leaf.region_name for leaf in bundled_snapshot().leaves), key=len)
    store.execute(
        "UPDATE batch_checkpoint SET region_name = :name WHERE region_code = '11680'", name=longest
    )
    store.fail(store.claim("11680"), final=True)
    monkeypatch.setattr(status, "Console", partial(Console, width=80))
    assert longest in mohe("status").out


def test_it_says_at_which_home_and_database_it_looks(
    mohe: Mohe, store: Store, environment: Environment
) -> None:
    out = mohe("status").out
    assert environment["MOHE_HOME"] in out
    assert store.database.where in out


def test_a_region_that_is_being_refined_is_shown_as_completed(mohe: Mohe, store: Store) -> None:
    store.complete(store.claim("11680"))
    store.execute(
        "UPDATE batch_checkpoint SET status = 'PROCESSING', refining = true "
        "WHERE region_code = '11680'"
    )
    assert (
        "1 of 6 completed, 0 in progress, 5 pending, 0 failed; 1 being refined"
        in mohe("status").out
    )


def test_more_failures_than_are_shown_are_counted(mohe: Mohe, store: Store) -> None:
    store.execute("""INSERT INTO region (region_type, region_code, region_name, sido_name,
                       sigungu_name, parent_code, is_leaf,
                                         partition_key, source, as_of)
                     SELECT 'sigungu', 'x' || i, 'x', 'x', 'x', 'x', true, 'x' || i, 'api',
                     '2026-10-08'
                       FROM generate_series(1, 30) i""")
    store.database.transaction(store.checkpoints.seed)
    store.execute(
        "UPDATE batch_checkpoint SET status = 'FAILED', failure_kind = 'transient' "
        "WHERE region_code LIKE 'x%'"
    )
    assert "and 10 more" in mohe("status").out


def test_a_reason_in_square_brackets_is_shown_as_it_is(mohe: Mohe, store: Store) -> None:
    store.execute(
        "UPDATE batch_checkpoint SET status = 'FAILED', failure_kind = 'internal',"
        " error_message = 'KeyError: [/red] [bold]' WHERE region_code = '11680'"
    )
    store.executions.start("run")
    store.executions.finish("run", Ending.FAILED, "note [/x] [green]")
    account = ApiAccount.of(
        "naver-classic", "demo-client-id", "", rate=1, daily=1, monthly=None
    ).account
    store.execute(
        """INSERT INTO api_budget (api, account, exhausted_until, exhausted_why)
           VALUES ('naver-classic', :account, budget_clock() + interval '1 hour', 'closed [/y]')""",
        account=account,
    )
    done = mohe("status")
    assert done.status == 0
    assert "[/red] [bold]" in done.out
    assert "[/x] [green]" in done.out
    assert "closed [/y]" in done.out


HOSTILE_NAME = "[/red] \x1b[31m\u202e[bold]"
LITERAL_NAME = "[/red] [31m[bold]"


def name_everything(store: Store) -> None:
    """As a hostile list of regions, and rows of an earlier version, have it."""
    store.execute(
        "UPDATE region SET region_name = :name, sido_name = :name, sigungu_name = :name",
        name=HOSTILE_NAME,
    )
    store.execute("UPDATE batch_checkpoint SET region_name = :name", name=HOSTILE_NAME)


def test_a_name_in_square_brackets_or_with_control_characters_is_shown_as_text(
    mohe: Mohe, store: Store
) -> None:
    name_everything(store)
    store.execute(
        "UPDATE batch_checkpoint SET status = 'FAILED', failure_kind = 'internal', error_message "
        "= :reason"
        " WHERE region_code = '11680'",
        reason=HOSTILE_NAME,
    )
    store.executions.start("run")
    store.executions.finish("run", Ending.FAILED, HOSTILE_NAME)
    done = mohe("status")
    assert (done.status, done.err) == (0, "")
    assert done.out.count(LITERAL_NAME) == 3
    assert is_plain(done.out)


def test_commands_that_name_regions_print_no_control_characters(mohe: Mohe, store: Store) -> None:
    name_everything(store)
    for before, *command in (
        ("FAILED", "retry"), ("COMPLETED", "new-round"), ("PROCESSING", "release", "11680"),
    ):  # fmt: skip
        store.execute(
            "UPDATE batch_checkpoint SET status = :status, failure_kind = 'internal', attempt = 1,"
            " lease_expires_at = now() + interval '1 hour' WHERE region_code = '11680'",
            status=before,
        )
        done = mohe(*command)
        assert (done.status, done.err) == (0, ""), command
        assert f"11680 {LITERAL_NAME}" in done.out
        assert is_plain(done.out)
    refused = mohe("retry", f"{HOSTILE_NAME} 2")
    assert refused.status == 1
    assert is_plain(refused.err)


def test_the_demos_table_shows_such_a_name_as_text(
    store: Store, environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    name_everything(store)
    with App.open(settings_module.load(environment)) as app:
        demo._summary(Console(width=200), app)
    out = capsys.readouterr().out
    assert LITERAL_NAME in out
    assert is_plain(out)


def is_plain(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


def test_a_month_that_is_used_up_and_what_ends_are_said(
    mohe: Mohe, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    del store
    hub = {
        "NCP_APIGW_API_KEY_ID": "demo-hub-key-id",
        "NCP_APIGW_API_KEY": "demo-hub-key",
        "MOHE_MONTHLY_QUOTA": "7",
    }
    assert "0 of 7 this month; open" in mohe("status", **hub).out
    monkeypatch.setattr(
        status, "classic_ends", lambda _, uses_hub: None if uses_hub else "It ends [soon]."
    )
    assert "It ends [soon]." in mohe("status").out
    assert json.loads(mohe("status", "--json").out)["warnings"] == ["It ends [soon]."]
    assert "It ends" not in mohe("status", **hub).out


def test_without_keys_the_rest_is_still_shown(mohe: Mohe, store: Store) -> None:
    del store
    done = mohe("status", without=("NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET", "GOVT_API_KEY"))
    assert done.status == 0
    assert "no keys are set" in done.out


def test_watching_follows_the_collection_until_it_is_interrupted(
    store: Store, process_environment: Callable[..., Environment]
) -> None:
    terminal, its_end = pty.openpty()
    command = [str(Path(sys.executable).with_name("mohe")), "status", "--watch"]
    variables = process_environment(COLUMNS="200", LINES="40", TERM="xterm")
    watching = subprocess.Popen(
        command, env=variables, stdin=its_end, stdout=its_end, stderr=its_end
    )
    os.close(its_end)
    try:
        assert "0 of 6 completed" in _seen(terminal, "0 of 6 completed")
        store.complete(store.claim("11110"))
        assert "1 of 6 completed" in _seen(terminal, "1 of 6 completed")
        watching.send_signal(signal.SIGINT)
        # The last look stays on the screen when the alternate one is left.
        assert "1 of 6 completed" in _seen(terminal, "1 of 6 completed")
        # A full terminal blocks the program's last lines.
        until(
            lambda: (
                _seen(terminal, "never said", seconds=0.1) is not None
                and watching.poll() is not None
            ),
            "it ends",
        )
        assert watching.wait() == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(terminal)


def test_watching_ends_also_when_python_drops_the_interrupt(
    store: Store,
    environment: Environment,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del store
    looks = []
    read = status._read

    def interrupted(app: App) -> status.Status:
        looks.append(app)
        assert len(looks) == 1, "it goes on"
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        return read(app)

    monkeypatch.setattr(status, "_read", interrupted)
    monkeypatch.setattr(status, "SECONDS_BETWEEN_LOOKS", 0)
    before = signal.getsignal(signal.SIGINT)
    with App.open(settings_module.load(environment)) as app:
        status._watch(app)
    assert "0 of 6 completed" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_before_there_are_regions_nothing_is_called_done(mohe: Mohe, database: Database) -> None:
    del database
    out = mohe("status").out
    assert "no regions yet" in out
    assert "done" not in out.replace("regions done", "")


def test_watching_and_json_exclude_each_other(mohe: Mohe, store: Store) -> None:
    del store
    done = mohe("status", "--watch", "--json")
    assert done.status == 2
    assert "either --watch or --json" in done.err


def _seen(terminal: int, words: str, *, seconds: float = 30) -> str:
    """Return the terminal's content up to these words."""
    text, until = "", time.monotonic() + seconds
    while words not in text and time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                text += os.read(terminal, 65_536).decode("utf-8", errors="replace")
            except OSError:  # the program's side is closed
                break
    return text
