"""Metrics for Prometheus: right figures, few labels; a database that is down is a figure, too."""

import datetime as dt
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mohe_assets import settings as settings_module
from mohe_assets.app import App
from mohe_assets.ops.metrics import CollectionMetrics
from mohe_assets.store.database import Database
from mohe_assets_tests.support.environments import Environment
from mohe_assets_tests.support.pages import section, table_rows
from mohe_assets_tests.support.stores import Store, place

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
# A figure: a metric's name with its labels as PromQL writes them.
Figures = dict[str, float]
Scrape = Callable[..., Figures]


def parsed(page: str) -> Figures:
    samples = [
        sample for family in text_string_to_metric_families(page) for sample in family.samples
    ]
    return {
        name + ",".join(f'{{{key}="{value}"}}' for key, value in labels.items()): value
        for name, labels, value, *_ in samples
    }


@pytest.fixture
def scrape(environment: Environment) -> Scrape:
    """One scrape with the changes given to the environment."""

    def once(**changes: str) -> Figures:
        with App.attached(settings_module.load({**environment, **changes})) as app:
            registry = CollectorRegistry()
            registry.register(CollectionMetrics(app))
            return parsed(generate_latest(registry).decode())

    return once


def test_the_figures_are_those_of_the_collection(scrape: Scrape, database: Database) -> None:
    store = Store.of(database)
    store.executions.start("run", total=2)
    lease = store.claim("11680")
    store.store(lease, 0, [place("a"), place("b")], calls=2)
    store.fail(lease, final=True)
    store.complete(store.claim("11110"))
    store.claim("11140")

    found = scrape()
    assert found["mohe_up"] == 1
    assert {
        name: found[f'mohe_regions{{status="{name}"}}']
        for name in ("pending", "processing", "completed", "failed")
    } == {
        "pending": 3,
        "processing": 1,
        "completed": 1,
        "failed": 1,
    }
    assert found['mohe_regions_failed{kind="transient"}'] == found["mohe_regions_given_up"] == 1
    assert (found["mohe_places"], found["mohe_searches_done"], found["mohe_calls_used"]) == (
        2,
        3,
        4,
    )
    assert (found["mohe_runs_active"], found["mohe_runs_silent"]) == (1, 0)
    assert 0 <= found["mohe_runs_oldest_heartbeat_age_seconds"] < 60
    assert abs(found["mohe_last_completion_timestamp_seconds"] - time.time()) < 60
    assert found['mohe_api_open{api="naver-classic"}'] == 1
    assert (
        0 < found['mohe_api_resets_timestamp_seconds{api="naver-classic"}'] - time.time() <= 86_400
    )
    assert not [name for name in found if "11680" in name], "no region is a label"


def test_each_metric_of_the_totals_is_the_column_that_the_page_names(
    scrape: Scrape, database: Database
) -> None:
    store = Store.of(database)
    store.executions.start("run", total=3)
    lease = store.claim("11680")
    store.store(lease, 0, [place("a"), place("b")], calls=2)
    store.fail(lease)
    store.complete(store.claim("11110"))
    store.claim("11140")
    store.expire()

    described = table_rows(section("docs/metrics.md", "Prometheus"))
    columns = {
        re.findall(r"mohe_(\w+)", names)[0]: source_column[1]
        for names, _, _, source in (row for row in described if len(row) == 4)
        if (source_column := re.search(r"`batch_totals\.(\w+)`", source))
    }
    assert len(columns) == 6
    (totals,) = store.read("SELECT * FROM batch_totals")
    found = scrape()
    for metric, column in columns.items():
        value = totals[column]
        if isinstance(value, dt.datetime):
            value = value.timestamp()
        elif isinstance(value, dt.timedelta):
            value = value.total_seconds()
        assert found[f"mohe_{metric}"] == pytest.approx(float(value), abs=5), metric
    for status in ("pending", "processing", "completed", "failed"):
        count = "SELECT count(*) AS n FROM batch_checkpoint WHERE status = upper(:status)"
        (row,) = store.read(count, status=status)
        assert found[f'mohe_regions{{status="{status}"}}'] == row["n"] > 0, status
    done = "SELECT count(*) AS n, sum(calls) AS calls FROM search_query WHERE status = 'DONE'"
    (searches,) = store.read(done)
    assert found["mohe_searches_done"] == searches["n"]
    assert found["mohe_calls_used"] == searches["calls"]
    assert found["mohe_places"] == store.read("SELECT count(*) AS n FROM places")[0]["n"]


def test_the_hub_has_a_month_and_without_keys_there_is_no_api(scrape: Scrape) -> None:
    hub = scrape(
        NCP_APIGW_API_KEY_ID="some-hub-id",
        NCP_APIGW_API_KEY="some-hub-key",
        MOHE_DAILY_QUOTA="25000",
    )
    assert hub['mohe_api_quota_calls{api="naver-hub"},{period="month"}'] == 775_000
    keyless = scrape(NAVER_CLIENT_ID="", NAVER_CLIENT_SECRET="")
    assert keyless["mohe_up"] == 1
    assert not [name for name in keyless if name.startswith("mohe_api")]


def test_a_database_that_is_down_or_empty_is_a_figure_and_no_crash(
    scrape: Scrape, empty_database_url: str
) -> None:
    assert scrape(MOHE_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none") == {"mohe_up": 0}
    assert scrape(MOHE_DATABASE_URL=empty_database_url) == {"mohe_up": 0}


def page_of(url: str) -> str:
    with urlopen(url, timeout=20) as response:  # noqa: S310 - our own server
        return str(response.read().decode())


def test_the_command_serves_the_page_until_it_is_told_to_stop(
    process_environment: Callable[..., Environment],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [str(Path(sys.executable).with_name("mohe")), "metrics", "--port", str(port)]
        refused = subprocess.run(
            command, env=process_environment(), capture_output=True, text=True, check=False
        )
    assert refused.returncode == 1
    assert f"Port {port}" in refused.stderr
    with subprocess.Popen(
        command, env=process_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert f"http://127.0.0.1:{port}/metrics" in process.stdout.readline()
            assert parsed(page_of(f"http://127.0.0.1:{port}/metrics"))["mohe_up"] == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    with pytest.raises(URLError):
        page_of(f"http://127.0.0.1:{port}/metrics")


def test_page_and_alerts_name_metrics_that_exist(scrape: Scrape, database: Database) -> None:
    store = Store.of(database)
    store.executions.start("run", total=1)
    store.complete(store.claim("11110"))
    store.fail(store.claim("11680"))
    store.execute(
        "INSERT INTO batch_plan (batch_name, region_type, plan, searches) "
        "VALUES ('place-ingestion-batch', 'sigungu', '', 1)"
    )
    exist = {
        re.sub(r"{.*", "", name)
        for name in scrape(NCP_APIGW_API_KEY_ID="some-hub-id", NCP_APIGW_API_KEY="some-hub-key")
    }

    described = set(
        re.findall(
            r"\bmohe_[a-z_]+[a-z]\b", (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
        )
    )
    assert exist == described - {"mohe_assets", "mohe_api_"}
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {name for rule in rules for name in re.findall(r"\bmohe_[a-z_]+", rule["expr"])} <= exist
    told = set(
        re.findall(
            r"^\| (Mohe\w+) \|",
            (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    assert {rule["alert"] for rule in rules} == told


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool comes with Debian's package prometheus")
@pytest.mark.parametrize("check", [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_prometheus_itself_takes_the_files(check: tuple[str, str]) -> None:
    command = [str(PROMTOOL), "check", *check]
    done = subprocess.run(command, cwd=ALERTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
