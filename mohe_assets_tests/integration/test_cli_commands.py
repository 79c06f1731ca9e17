"""The commands of `mohe` in this process: their output and their effect on the database."""

import io
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy.engine import make_url

from mohe_assets.postgres import schema
from mohe_assets.postgres.embedded import EmbeddedServer
from mohe_assets.simulator.server import Simulator
from mohe_assets.store.database import Database
from mohe_assets_tests.support.commands import Ended, Mohe
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.stores import CODES, Store

PASSWORD = "p@ss/w:rd %41 needle"
DAGSTER = Path(sys.executable).with_name("dagster")


class TestDatabase:
    def test_migrating_brings_an_empty_database_to_the_current_revision(
        self, mohe: Mohe, empty_database_url: str
    ) -> None:
        urls = {
            "MOHE_DATABASE_URL": empty_database_url,
            "MOHE_DAGSTER_DATABASE_URL": empty_database_url,
        }
        done = mohe("status", **urls)
        assert done.status == 1
        assert done.err.endswith("run `mohe db migrate`.\n")
        assert f"is at revision {schema.head_revision()}." in mohe("db", "migrate", **urls).out
        assert mohe("status", **urls).status == 0

    def test_the_urls_are_printed_as_they_are(
        self, mohe: Mohe, database_url: str, empty_database_url: str
    ) -> None:
        dagster = {"MOHE_DAGSTER_DATABASE_URL": empty_database_url}
        printed = (
            mohe("db", "url", **dagster).out.strip(),
            mohe("db", "url", "--dagster", **dagster).out.strip(),
        )
        assert [make_url(url) for url in printed] == [
            make_url(database_url),
            make_url(empty_database_url),
        ]

    def test_psql_opens_the_database_with_its_own_arguments(
        self, store: Store, process_environment: Callable[..., Environment]
    ) -> None:
        program = Path(sys.executable).with_name("mohe")
        sql = "SELECT count(*) FROM batch_checkpoint WHERE region_name LIKE '%구'"
        done = subprocess.run(
            [str(program), "db", "psql", "-XAtc", sql],
            env=process_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
        assert len(CODES) == store.checkpoints.progress().total == 6

    def test_no_other_account_sees_the_password_that_psql_connects_with(
        self, database_url: str, process_environment: Callable[..., Environment]
    ) -> None:
        url = make_url(database_url).set(password=PASSWORD).render_as_string(hide_password=False)
        program = Path(sys.executable).with_name("mohe")
        look = r"\! tr '\0' '\n' < /proc/$PPID/cmdline; echo PGPASSWORD=$PGPASSWORD"
        done = subprocess.run(
            [str(program), "db", "psql", "-X", "-c", look],
            env=process_environment(MOHE_DATABASE_URL=url),
            capture_output=True,
            text=True,
            check=False,
        )
        *shown, variable = done.stdout.splitlines()
        assert variable == f"PGPASSWORD={PASSWORD}", done.stderr
        assert "dbname=test_" in "\n".join(shown)
        assert "needle" not in "\n".join(shown)

    def test_no_other_account_sees_the_password_that_pg_dump_connects_with(
        self, mohe: Mohe, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ran: list[tuple[list[str], dict[str, str]]] = []
        monkeypatch.setattr(
            "os.execve", lambda _, command, variables: ran.append((command, variables))
        )
        url = make_url(database_url).set(password=PASSWORD)
        mohe(
            "db",
            "dump",
            "--schema-only",
            MOHE_DATABASE_URL=url.render_as_string(hide_password=False),
        )
        ((_, database, *options), variables) = ran[0]
        assert variables["PGPASSWORD"] == PASSWORD
        assert options == ["--no-owner", "--no-privileges", "--schema-only"]
        assert parse_dsn(database)["dbname"] == url.database
        assert "needle" not in database

    def test_a_reset_asks_first_and_then_starts_from_nothing(
        self, mohe: Mohe, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.complete(store.claim())
        monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
        assert mohe("db", "reset").status == 1
        assert store.row()["status"] == "COMPLETED"
        assert (
            mohe("db", "reset", "--yes").out
            == "6 regions are PENDING, without any stored search.\n"
        )
        assert store.row()["attempt"] == 0

    def test_a_server_of_ones_own_is_neither_started_nor_stopped(
        self, mohe: Mohe, postgres: EmbeddedServer
    ) -> None:
        assert "your own server" in mohe("db", "start").out
        done = mohe("db", "stop")
        assert (done.status, done.out) == (1, "")
        assert "which mohe does not stop" in done.err
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
        assert (
            embedded("db", "start").out == f"The embedded PostgreSQL runs in {home / 'postgres'}.\n"
        )
        url = embedded("db", "url").out.strip()
        assert embedded("status").status == 0
        # What `mohe env` exports names the same server, and still means the embedded one.
        again = mohe(
            "db",
            "url",
            without=("MOHE_DAGSTER_DATABASE_URL",),
            MOHE_HOME=str(home),
            MOHE_DATABASE_URL=url,
        )
        assert again.out.strip() == url
        assert embedded("db", "stop").out == "The embedded PostgreSQL is stopped.\n"
        assert embedded("db", "stop").out == "The embedded PostgreSQL was not running.\n"


class TestPlan:
    def test_says_calls_and_days_of_what_is_left_and_sends_none(
        self, mohe: Mohe, store: Store, simulator: Simulator
    ) -> None:
        store.complete(store.claim("11680"))
        lease = store.claim("11110")
        store.store(lease)
        store.checkpoints.release(lease)
        done = mohe(
            "plan",
            "--json",
            MOHE_SEARCH_KEYWORDS="카페,공원",
            MOHE_MAX_CALLS_PER_REGION="10",
            MOHE_DAILY_QUOTA="20",
        )
        assert (done.status, done.err) == (0, "")
        found = json.loads(done.out)
        assert (found["regions"], found["keywords"]) == (6, 2)
        # Five regions are not completed and have one stored search; each of them may be refined
        # with eight more calls. The completed one has nothing to gain.
        assert (found["base"]["calls"], found["base"]["days"]) == (9, 1)
        assert found["with_refinement"]["calls"] == 9 + 5 * 8
        assert found["with_refinement"]["days"] == 3
        assert simulator.stats(brief=True)["naver"]["received"] == 0

    def test_the_hub_has_a_rate_of_its_own_and_a_month(self, mohe: Mohe, store: Store) -> None:
        del store
        keys = {"NCP_APIGW_API_KEY_ID": "an-id-of-the-hub", "NCP_APIGW_API_KEY": "a-key-of-the-hub"}
        done = mohe("plan", without=("MOHE_CALLS_PER_SECOND",), MOHE_MONTHLY_QUOTA="50", **keys)
        assert "50 a second; 50 of 50 left this month" in " ".join(done.out.split())
        found = json.loads(
            mohe("plan", "--json", MOHE_MONTHLY_QUOTA="1", MOHE_SEARCH_KEYWORDS="카페", **keys).out
        )
        assert (
            found["allowance"]["left_month"],
            found["base"]["calls"],
            found["base"]["days"],
        ) == (1, 6, 6)

    def test_a_new_keyword_is_left_to_do_for_completed_regions_too(
        self, mohe: Mohe, store: Store
    ) -> None:
        for code in CODES:
            store.complete(store.claim(code))
        one_more = json.loads(mohe("plan", "--json", MOHE_SEARCH_KEYWORDS="카페,공원,서점").out)
        assert one_more["base"]["calls"] == len(CODES)
        nothing = mohe("plan", MOHE_SEARCH_KEYWORDS="카페,공원", MOHE_MAX_CALLS_PER_REGION="2")
        assert "done" in nothing.out
        assert "MOHE_REFINE is false" in nothing.out

    def test_before_there_are_regions_it_counts_those_of_the_bundled_list(
        self, mohe: Mohe, database: Database
    ) -> None:
        del database
        found = json.loads(mohe("plan", "--json").out)
        assert (found["regions"], found["base"]["calls"]) == (256, 256 * 15)
        assert found["with_refinement"]["calls"] == 256 * 400


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

        script = (
            f'eval "$1"; printf "%s\\n" "$DAGSTER_HOME"; exec {shlex.quote(str(DAGSTER))} '
            "instance info"
        )
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
        urls = {
            "MOHE_DATABASE_URL": empty_database_url,
            "MOHE_DAGSTER_DATABASE_URL": empty_database_url,
        }
        assert mohe("env", **urls).status == 0
        assert mohe("status", **urls).status == 0
        assert simulator.stats(brief=True)["naver"]["received"] == 0
