"""The commands of `mohe` in this process: what they print, and what they do to the database."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from mohe_assets import cli
from mohe_assets.simulator.server import Simulator
from mohe_assets.store import schema
from mohe_assets.store.api_budget import ApiAccount
from mohe_assets.store.database import Database
from mohe_assets.store.embedded import EmbeddedServer
from mohe_assets.store.executions import Ending
from mohe_assets_tests.conftest import Environment
from mohe_assets_tests.integration.test_checkpoints import CODES, Store, place

DAGSTER = Path(sys.executable).with_name("dagster")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str


Mohe = Callable[..., Ended]


@pytest.fixture
def store(database: Database) -> Store:
    return Store.of(database)


@pytest.fixture
def mohe(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    process_environment: Callable[..., Environment],
) -> Mohe:
    """Runs one command with the test's environment, changed as asked; `without` names variables to leave out."""

    def run(*arguments: str, without: tuple[str, ...] = (), **changes: str) -> Ended:
        variables = process_environment(**changes)
        for name in {*os.environ, *variables}:
            if name in variables and name not in without:
                monkeypatch.setenv(name, variables[name])
            else:
                monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["mohe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    return run


class TestStatus:
    def test_json_has_the_counts_a_script_needs(self, mohe: Mohe, store: Store) -> None:
        store.executions.start("run", total=2)
        lease = store.claim("11680")
        store.store(lease, 0, [place("a"), place("b")], calls=2)
        store.fail(lease, final=True)
        store.complete(store.claim("11110"))
        store.executions.finish("run", Ending.FAILED, "why")

        done = mohe("status", "--json")

        assert (done.status, done.err) == (0, "")
        found = json.loads(done.out)
        assert found["progress"] == {
            "total": 6, "completed": 1, "failed": 1, "processing": 0, "pending": 4, "given_up": 1, "next_retry_at": None,
        }  # fmt: skip
        overview = found["overview"]
        assert (overview["places"], overview["searches"], overview["calls"]) == (2, 3, 4)
        assert [one["error_message"] for one in overview["failures"]] == ["HTTP 500"]
        assert [(one["execution_id"], one["status"], one["note"]) for one in overview["runs"]] == [("run", "FAILED", "why")]
        assert (found["api"]["used_today"], found["api"]["blocked_why"], found["api"]["closed_until"]) == (0, None, None)

    def test_the_table_shows_failures_and_what_to_do_about_them(self, mohe: Mohe, store: Store) -> None:
        store.fail(store.claim("11680"), final=True)
        done = mohe("status")
        assert done.status == 0
        assert "0 of 6 completed, 0 in progress, 5 pending, 1 failed" in done.out
        assert "HTTP 500" in done.out
        assert "mohe retry" in done.out

    def test_a_reason_in_square_brackets_is_shown_as_it_is(self, mohe: Mohe, store: Store) -> None:
        store.execute("UPDATE batch_checkpoint SET status = 'FAILED', failure_kind = 'internal',"
                      " error_message = 'KeyError: [/red] [bold]' WHERE region_code = '11680'")  # fmt: skip
        store.executions.start("run")
        store.executions.finish("run", Ending.FAILED, "note [/x] [green]")
        account = ApiAccount.of("naver-classic", "demo-client-id", "", rate=1, daily=1, monthly=None).account
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

    def test_without_keys_the_rest_is_still_shown(self, mohe: Mohe, store: Store) -> None:
        del store
        done = mohe("status", without=("NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET", "GOVT_API_KEY"))
        assert done.status == 0
        assert "no keys are set" in done.out


class TestRetry:
    @pytest.mark.parametrize("word", ["11680", "11680_서울특별시_강남구", "서울특별시 강남구", "서울특별시_강남구"])
    def test_a_failed_region_is_named_by_code_key_or_name(self, mohe: Mohe, store: Store, word: str) -> None:
        for code in ("11680", "11110"):
            store.fail(store.claim(code), final=True)
        assert mohe("retry", word).out == "1 failed regions are PENDING again: 11680.\n"
        assert (store.row("11680")["status"], store.row("11110")["status"]) == ("PENDING", "FAILED")

    def test_without_a_name_all_failed_regions_are_tried_again(self, mohe: Mohe, store: Store) -> None:
        for code in ("11680", "11110"):
            store.fail(store.claim(code), final=True)
        assert mohe("retry").status == 0
        assert {row["status"] for row in store.read("SELECT status FROM batch_checkpoint")} == {"PENDING"}

    @pytest.mark.parametrize("word", ["강남", "99999", "중구", ""])
    def test_an_unknown_name_is_a_sentence_and_changes_nothing(self, mohe: Mohe, store: Store, word: str) -> None:
        store.fail(store.claim("11680"), final=True)
        done = mohe("retry", "11680", word)
        assert done.status == 1
        assert done.err == (f"mohe: There is no region {word!r}; give a code such as 11680, a partition key or a full name.\n")
        assert store.row("11680")["status"] == "FAILED"

    def test_unblocking_says_whether_there_was_anything_to_unblock(self, mohe: Mohe, store: Store) -> None:
        del store
        assert mohe("unblock").out == "naver-classic was not blocked.\n"


class TestDatabase:
    def test_migrating_brings_an_empty_database_to_the_current_revision(self, mohe: Mohe, empty_database_url: str) -> None:
        urls = {"MOHE_DATABASE_URL": empty_database_url, "MOHE_DAGSTER_DATABASE_URL": empty_database_url}
        done = mohe("status", **urls)
        assert done.status == 1
        assert done.err.endswith("run `mohe db migrate`.\n")
        assert f"is at revision {schema.head_revision()}." in mohe("db", "migrate", **urls).out
        assert mohe("status", **urls).status == 0

    def test_the_urls_are_printed_as_they_are(self, mohe: Mohe, database_url: str, empty_database_url: str) -> None:
        dagster = {"MOHE_DAGSTER_DATABASE_URL": empty_database_url}
        printed = mohe("db", "url", **dagster).out.strip(), mohe("db", "url", "--dagster", **dagster).out.strip()
        assert [make_url(url) for url in printed] == [make_url(database_url), make_url(empty_database_url)]

    def test_psql_opens_the_database_with_its_own_arguments(
        self, store: Store, process_environment: Callable[..., Environment]
    ) -> None:
        program = Path(sys.executable).with_name("mohe")
        sql = "SELECT count(*) FROM batch_checkpoint WHERE region_name LIKE '%구'"
        done = subprocess.run(
            [str(program), "db", "psql", "-XAtc", sql], env=process_environment(), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
        assert len(CODES) == store.checkpoints.progress().total == 6

    def test_a_reset_asks_first_and_then_starts_from_nothing(
        self, mohe: Mohe, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.complete(store.claim())
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        assert mohe("db", "reset").status == 1
        assert store.row()["status"] == "COMPLETED"
        assert mohe("db", "reset", "--yes").out == "6 regions are PENDING and start from nothing.\n"
        assert store.row()["attempt"] == 0

    def test_a_server_of_ones_own_is_neither_started_nor_stopped(self, mohe: Mohe, postgres: EmbeddedServer) -> None:
        assert "a server of your own" in mohe("db", "start").out
        done = mohe("db", "stop")
        assert (done.status, done.out) == (1, "")
        assert "mohe does not stop that one" in done.err
        assert postgres.running

    @pytest.fixture
    def home(self) -> Iterator[Path]:
        """A folder for an embedded server of this test's own."""
        folder = Path(tempfile.mkdtemp(prefix="mohe-cli-"))
        folder.chmod(0o755)
        yield folder
        EmbeddedServer(home=folder).stop()
        shutil.rmtree(folder)

    def test_the_embedded_server_is_started_used_and_stopped(self, mohe: Mohe, home: Path) -> None:
        urls = ("MOHE_DATABASE_URL", "MOHE_DAGSTER_DATABASE_URL")

        def embedded(*arguments: str) -> Ended:
            return mohe(*arguments, without=urls, MOHE_HOME=str(home))

        assert embedded("db", "stop").out == "The embedded PostgreSQL was not running.\n"
        assert embedded("db", "start").out == f"The embedded PostgreSQL runs in {home / 'postgres'}.\n"
        url = embedded("db", "url").out.strip()
        assert embedded("status").status == 0
        # What `mohe env` exports names the same server, and still means the embedded one.
        again = mohe("db", "url", without=("MOHE_DAGSTER_DATABASE_URL",), MOHE_HOME=str(home), MOHE_DATABASE_URL=url)
        assert again.out.strip() == url
        assert embedded("db", "stop").out == "The embedded PostgreSQL is stopped.\n"
        assert embedded("db", "stop").out == "The embedded PostgreSQL was not running.\n"


class TestPlan:
    def test_says_calls_and_days_of_what_is_left_and_sends_none(self, mohe: Mohe, store: Store, simulator: Simulator) -> None:
        store.complete(store.claim("11680"))
        lease = store.claim("11110")
        store.store(lease)
        store.checkpoints.release(lease)
        done = mohe("plan", "--json", MOHE_SEARCH_KEYWORDS="카페,공원", MOHE_MAX_CALLS_PER_REGION="10", MOHE_DAILY_QUOTA="20")
        assert (done.status, done.err) == (0, "")
        found = json.loads(done.out)
        assert (found["regions"], found["keywords"]) == (6, 2)
        # Five regions are not completed, one search of theirs is stored; each region may be refined with eight calls more.
        assert (found["base"]["calls"], found["base"]["days"]) == (9, 1)
        assert found["with_refinement"]["calls"] == 9 + 6 * 8
        assert found["with_refinement"]["days"] == 3
        assert simulator.stats(brief=True)["naver"]["received"] == 0

    def test_a_new_keyword_is_left_to_do_for_completed_regions_too(self, mohe: Mohe, store: Store) -> None:
        for code in CODES:
            store.complete(store.claim(code))
        one_more = json.loads(mohe("plan", "--json", MOHE_SEARCH_KEYWORDS="카페,공원,서점").out)
        assert one_more["base"]["calls"] == len(CODES)
        nothing = mohe("plan", MOHE_SEARCH_KEYWORDS="카페,공원", MOHE_MAX_CALLS_PER_REGION="2")
        assert "done" in nothing.out
        assert "MOHE_REFINE is false" in nothing.out

    def test_before_there_are_regions_it_counts_those_of_the_bundled_list(self, mohe: Mohe, database: Database) -> None:
        del database
        found = json.loads(mohe("plan", "--json").out)
        assert (found["regions"], found["base"]["calls"]) == (256, 256 * 15)


class TestEnv:
    def test_its_lines_make_plain_dagster_commands_work_in_a_shell(
        self, mohe: Mohe, tmp_path: Path, process_environment: Callable[..., Environment]
    ) -> None:
        home = tmp_path / "집 'with' $HOME and `quotes`"
        done = mohe("env", MOHE_HOME=str(home))
        assert (done.status, done.err) == (0, "")
        lines = done.out.splitlines()
        assert all(line.startswith("export ") for line in lines)
        exported = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        assert exported["DAGSTER_HOME"] == str(home / "dagster")
        assert exported["MOHE_HOME"] == str(home)
        assert (home / "dagster" / "dagster.yaml").exists()

        script = f'eval "$1"; printf "%s\\n" "$DAGSTER_HOME"; exec {shlex.quote(str(DAGSTER))} instance info'
        shell = subprocess.run(
            ["/bin/sh", "-c", script, "sh", done.out],
            env=process_environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert shell.returncode == 0, shell.stderr
        assert shell.stdout.startswith(f"{exported['DAGSTER_HOME']}\n")
        assert "PostgresRunStorage" in shell.stdout

    def test_it_brings_an_empty_database_to_the_current_schema(
        self, mohe: Mohe, empty_database_url: str, simulator: Simulator
    ) -> None:
        urls = {"MOHE_DATABASE_URL": empty_database_url, "MOHE_DAGSTER_DATABASE_URL": empty_database_url}
        assert mohe("env", **urls).status == 0
        assert mohe("status", **urls).status == 0
        assert simulator.stats(brief=True)["naver"]["received"] == 0
