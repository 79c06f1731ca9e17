"""Checks of an installation. Each finding has its level, and advice unless the level is ok.

The checks change nothing, except that they send one call with each key. Checks that depend on a
broken or stopped part are left out.
"""

import datetime as dt
import difflib
import os
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from mohe_assets.app import ONE_TRY, App, region_client
from mohe_assets.clients.base_url import is_loopback
from mohe_assets.clients.server_clock import seconds_ahead
from mohe_assets.domain.kst import KST, short_to_minute
from mohe_assets.errors import (
    ApiBlocked,
    ApiError,
    DatabaseUnavailable,
    QuotaExhausted,
    SettingsError,
)
from mohe_assets.packaged_files import is_shipped_dagster_yaml, packaged_file
from mohe_assets.postgres import schema
from mohe_assets.postgres.databases import DatabaseUrls, ignore_redirecting_variables, resolve_urls
from mohe_assets.postgres.embedded import HOME_MODE, PRIVATE_MODE, EmbeddedServer
from mohe_assets.settings import SECRETS, Settings, classic_ends, load, variable
from mohe_assets.store.clock import Clock
from mohe_assets.store.database import PATIENCE, Database
from mohe_assets.store.hand_edits import missing_places
from mohe_assets.store.origin import Origin
from mohe_assets.store.reads.server import read_clock, read_server
from mohe_assets.store.sqlstate import READ_ONLY, TROUBLES, UP_CONNECTIONS

PREFIXES = ("MOHE_", "CHECKPOINT_", "BATCH_", "NAVER_", "NCP_APIGW_", "GOVT_")
LEAST_SERVER_VERSION = 14
LEAST_FREE_BYTES = 2 * 1024**3
# The day's quota ends at midnight by the database's clock: seconds do not matter, minutes do.
MOST_SKEW_SECONDS = 5.0
LEAST_FREE_FILES = 1_000
# With fewer free connections, the next run may get none.
LEAST_FREE_CONNECTIONS = 10


class Level(StrEnum):
    """`warning`: it works, but a person should check; `error`: collecting does not work."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The result of a check, with advice unless the level is ok."""

    check: str
    level: Level
    found: str
    advice: str = ""


def _ok(check: str, found: str) -> Finding:
    return Finding(check=check, level=Level.OK, found=found)


def _warning(check: str, found: str, advice: str) -> Finding:
    return Finding(check=check, level=Level.WARNING, found=found, advice=advice)


def _error(check: str, found: str, advice: str) -> Finding:
    return Finding(check=check, level=Level.ERROR, found=found, advice=advice)


def examine(environ: Mapping[str, str], *, calls: bool = True) -> Iterator[Finding]:
    """Yield all findings in the order of dependence; without `calls` the keys are not tried."""
    try:
        yield from _examine(environ, calls=calls)
    except OSError as error:  # a full disk, or a file of another user
        yield _error(
            "this machine",
            f"{error.filename or 'a file'}: {error.strerror}.",
            "Correct it; the checks after this were left out.",
        )


def _examine(environ: Mapping[str, str], *, calls: bool) -> Iterator[Finding]:
    yield from _misspelt(environ)
    try:
        settings = load(environ)
    except SettingsError as error:
        yield _error(
            "settings", str(error), "Correct that variable; the other checks were left out."
        )
        return
    yield _settings(settings)
    if warning := classic_ends(dt.datetime.now(KST), settings.uses_hub):
        yield _warning(
            "classic API",
            warning,
            "Set both keys of NAVER API HUB to switch to it; no region is collected twice.",
        )
    yield from _api_hosts(settings)
    yield from _folders(settings)
    yield from _modes(settings.home)
    yield from _dagster_yaml(settings.home / "dagster" / "dagster.yaml")
    if calls:
        yield _government_key(settings)
    yield from _with_database(settings, calls=calls)


def _misspelt(environ: Mapping[str, str]) -> Iterator[Finding]:
    known = {variable(name) for name in Settings.model_fields} | {
        f"{name}_FILE" for name in SECRETS
    }
    for name in sorted(environ):
        if name.startswith(PREFIXES) and name not in known:
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if meant:
                yield _warning(
                    "settings", f"{name} is set, but is no setting.", f"Did you mean {meant[0]}?"
                )


def _settings(settings: Settings) -> Finding:
    try:
        settings.require_collection_keys()
    except SettingsError as error:
        return _error(
            "settings", str(error), "Set it in the environment, or in .env for containers."
        )
    kind = "NAVER API HUB" if settings.uses_hub else "classic local search"
    host = settings.naver_hub_url if settings.uses_hub else settings.naver_api_url
    return _ok(
        "settings",
        f"{kind} at {host}, {settings.calls_per_second:g} calls a second, "
        f"{settings.daily_quota:,} a day, {len(settings.search_keywords)} keywords",
    )


def _api_hosts(settings: Settings) -> Iterator[Finding]:
    """Check that the hosts that get keys are the APIs' own, by encrypted connections."""
    for name in ("government_api_url", "naver_api_url", "naver_hub_url"):
        url, known = getattr(settings, name), Settings.model_fields[name].default
        parts = urlsplit(url)
        if is_loopback(parts.hostname or ""):
            continue
        if parts.scheme == "http":
            yield _warning(
                variable(name),
                f"{url} is not encrypted: the keys cross the network in plain text.",
                "Use https://, unless this network is trusted.",
            )
        if parts.hostname != urlsplit(known).hostname:
            yield _warning(
                variable(name),
                f"{parts.hostname} is not the API's host, but gets the keys.",
                f"Unset {variable(name)} unless that host is yours; the API is at {known}.",
            )


def _folders(settings: Settings) -> Iterator[Finding]:
    for name, folder in (
        ("MOHE_HOME", settings.home),
        ("MOHE_CATALOG_DIR", settings.catalog_folder),
    ):
        try:
            there = _existing(folder)
            free, files = shutil.disk_usage(there).free, os.statvfs(there)
        except OSError as error:
            yield _error(
                name,
                f"{folder} cannot be read: {error.strerror}.",
                f"Give the user the folder, or set {name}.",
            )
            continue
        if not os.access(there, os.W_OK | os.X_OK):
            yield _error(
                name,
                f"{folder} cannot be written by this user.",
                f"Give the user the folder, or set {name}.",
            )
            continue
        if files.f_files and files.f_favail < LEAST_FREE_FILES:
            yield _error(
                name,
                f"{folder} has room for {files.f_favail:,} more files.",
                "Its file system is out of inodes: delete files.",
            )
            continue
        found = f"{folder}, {free / 1024**3:.1f} GiB free"
        if free < LEAST_FREE_BYTES:
            yield _warning(
                name,
                found,
                "A national collection with its answers takes about 2 GiB: free some space.",
            )
        else:
            yield _ok(name, found)


def _existing(folder: Path) -> Path:
    while not os.access(folder, os.F_OK):
        folder = folder.parent
    return folder


def _modes(home: Path) -> Iterator[Finding]:
    """Check modes of homes that earlier versions or users made; new homes have these modes."""
    for folder, most in (
        (home, HOME_MODE),
        (home / "dagster", PRIVATE_MODE),
        (home / "logs", PRIVATE_MODE),
    ):
        if (
            os.access(folder, os.F_OK)
            and (mode := stat.S_IMODE(folder.stat().st_mode)) & 0o777 & ~most
        ):
            yield _warning(
                "MOHE_HOME",
                f"{folder} has mode {mode:o}, which gives other accounts more access than needed.",
                f"Run `chmod {most:o} {shlex.quote(str(folder))}`.",
            )


def _dagster_yaml(path: Path) -> Iterator[Finding]:
    """Compare a file changed by hand, which no command updates, with this version's."""
    if not os.access(path, os.R_OK) or is_shipped_dagster_yaml(path.read_bytes()):
        return
    try:
        theirs = dict(_leaves(yaml.safe_load(path.read_bytes())))
    except yaml.YAMLError as error:
        yield _error(
            "dagster.yaml",
            f"{path} cannot be read: {' '.join(str(error).split())}",
            "Correct it, or remove it: the next command that starts Dagster creates it.",
        )
        return
    ours = dict(_leaves(yaml.safe_load(packaged_file("dagster.yaml").read_bytes())))
    lacking = sorted(name for name in ours if name not in theirs)
    found = f"{path} was changed by hand and is kept"
    if lacking:
        lacks = ", ".join(f"{name}: {ours[name]}" for name in lacking)
        yield _warning(
            "dagster.yaml",
            f"{found}; it lacks {lacks}",
            "Add the lines you want, or remove the file: the next command creates it.",
        )
    else:
        yield _ok("dagster.yaml", found)


def _leaves(node: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, f"{path}.{name}".lstrip("."))
    else:
        yield path, node


def _government_key(settings: Settings) -> Finding:
    check = "GOVT_API_KEY"
    if settings.govt_api_key is None:
        return _error(
            check,
            "not set",
            "Request a key for 행정안전부_행정표준코드_법정동코드 on data.go.kr, and set it.",
        )

    def call() -> str:
        rows = region_client(settings, retry=ONE_TRY).count_rows()
        return f"accepted by {settings.government_api_url}; the list has {rows:,} rows"

    return _tried(check, call)


def _place_keys(app: App) -> Finding:
    settings = app.settings
    check = "NCP_APIGW_API_KEY" if settings.uses_hub else "NAVER_CLIENT_ID"
    if not settings.uses_hub and settings.naver_client_id is None:
        return _error(
            check,
            "no keys for the search API are set",
            "Set NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY.",
        )

    def call() -> str:
        app.try_place_keys()
        return (
            f"accepted by {settings.naver_hub_url if settings.uses_hub else settings.naver_api_url}"
        )

    return _tried(check, call)


def _tried(check: str, call: Callable[[], str]) -> Finding:
    try:
        return _ok(check, call())
    except QuotaExhausted as error:
        until = f" until {short_to_minute(error.reset_at)}" if error.reset_at else ""
        return _warning(
            check,
            f"no call is left{until}: {error}",
            "No action: the collection continues automatically after the reset.",
        )
    except ApiBlocked as error:
        return _error(
            check,
            str(error),
            "Correct the keys; if they are right, run `mohe unblock`.",
        )
    except SettingsError as error:
        return _error(check, str(error), "Copy the key again.")
    except ApiError as error:
        return _error(
            check,
            str(error),
            "No action: regions that fail for this are tried again later.",
        )


def _with_database(settings: Settings, *, calls: bool) -> Iterator[Finding]:
    urls = resolve_urls(settings)
    ignore_redirecting_variables(urls)
    database = Database.connect(urls.data, reconnect_seconds=0, session=PATIENCE)
    try:
        if urls.embedded is not None:
            yield (embedded := _embedded(urls.embedded))
            if embedded.level is not Level.OK:
                return
        yield from _server(database)
        yield from _dagster_database(urls)
        yield from _clocks(settings, database)
        revision = _schema(database)
        yield revision
        if revision.level is Level.ERROR:
            return
        with App.open(settings, database, looking=True) as app:
            yield _origin(app)
            yield _regions(app)
            yield from _tables(app)
            if calls:
                yield _place_keys(app)
            yield _runs(app)
            yield _moments(app.clock)
    except DatabaseUnavailable as error:
        yield _error("database", error.state, error.advice or _advice(urls))
    finally:
        database.close()


def _advice(urls: DatabaseUrls) -> str:
    if urls.embedded is not None:
        return f"Read {urls.embedded.data / 'server.log'}; then run `mohe db start`."
    return "Check that the server runs, and host, user, password and database in MOHE_DATABASE_URL."


def _embedded(server: EmbeddedServer) -> Finding:
    check = "embedded server"
    try:
        server.require_ours()
    except DatabaseUnavailable as error:
        return _error(check, str(error), "The other checks were left out; nothing was changed.")
    try:
        server.require_running()
    except DatabaseUnavailable as error:
        kind = _error if server.running else _warning
        return kind(check, str(error), "Start it by `mohe db start` to check the database.")
    return _ok(check, f"runs in {server.data}")


def _server(database: Database) -> Iterator[Finding]:
    database.check()
    server = read_server(database)
    found = f"{database.where}: PostgreSQL {server.version}, {server.size}"
    if server.major < LEAST_SERVER_VERSION:
        yield _error("database", found, f"Upgrade to PostgreSQL {LEAST_SERVER_VERSION} or newer.")
    elif server.read_only:
        yield _error("database", f"{found}, read-only", TROUBLES[READ_ONLY].advice)
    else:
        yield _ok("database", found)
    most, free = server.connections, server.connections - server.used
    found = f"{server.used} of {most} are in use"
    if most < UP_CONNECTIONS or free < LEAST_FREE_CONNECTIONS:
        yield _warning(
            "connections",
            found,
            f"`mohe up` needs 10 to {UP_CONNECTIONS}: raise max_connections, or close others.",
        )
    else:
        yield _ok("connections", found)


def _dagster_database(urls: DatabaseUrls) -> Iterator[Finding]:
    database = Database.connect(urls.dagster, reconnect_seconds=0, session=PATIENCE)
    try:
        database.check()
        yield _ok("Dagster's database", database.where)
    except DatabaseUnavailable as error:
        yield _error(
            "Dagster's database",
            error.state,
            f"{error.advice} Run `mohe db migrate`, or set MOHE_DAGSTER_DATABASE_URL.",
        )
    finally:
        database.close()


def _clocks(settings: Settings, database: Database) -> Iterator[Finding]:
    """Compare the clocks with the database's, which decides leases and the day's quota."""
    before = dt.datetime.now(dt.UTC)
    moment = read_clock(database)
    after = dt.datetime.now(dt.UTC)
    # The duration of the query is the uncertainty.
    ahead = (moment - (before + (after - before) / 2)).total_seconds()
    yield _skew("clock of the database", ahead, "this machine's", (after - before).total_seconds())
    host = settings.naver_hub_url if settings.uses_hub else settings.naver_api_url
    if (theirs := seconds_ahead(host)) is not None:
        yield _skew("clock of the search API", theirs - ahead, "the database's", 1.0)


def _moments(clock: Clock) -> Finding:
    if errors := clock.look():
        return _warning(
            "moments in the database",
            errors.sentence,
            "The next run or sensor tick corrects them; set the server's clock by NTP.",
        )
    return _ok("moments in the database", "none lies further in the future than possible")


def _skew(check: str, ahead: float, other: str, uncertain: float) -> Finding:
    found = f"{abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} {other}"
    if abs(ahead) > MOST_SKEW_SECONDS + uncertain:
        return _warning(
            check,
            found,
            "Set the clocks by NTP: the day's quota starts at midnight by the database's clock.",
        )
    return _ok(check, found)


def _schema(database: Database) -> Finding:
    try:
        schema.require_current(database)
    except DatabaseUnavailable as error:
        return _error("schema", str(error), "Run `mohe db migrate`.")
    return _ok("schema", f"at revision {schema.head_revision()}, as needed")


def _origin(app: App) -> Finding:
    if mismatch := app.origin_mismatch():
        return _error("data", mismatch.found, mismatch.advice)
    found = {
        Origin.NONE: "nothing is collected yet",
        Origin.SIMULATOR: "made up by the simulator",
        Origin.API: "real",
    }
    return _ok("data", found[app.data_origin.places()])


def _tables(app: App) -> Iterator[Finding]:
    """Check for rows that were deleted or written by hand."""
    edits = app.hand_edits()
    lost = missing_places(app.database, app.settings.checkpoint_region_type)
    refresh = "Run the job refresh_regions; the next batch downloads the list as well."
    found = [
        _warning(f"table {table}", f"{count:,} {what}.", advice)
        for table, count, what, advice in (
            ("batch_checkpoint", edits.without_checkpoint, "regions have no checkpoint",
             "No action: the next run or sensor tick adds it and collects them again."),
            ("batch_checkpoint", edits.unknown_regions,
             "checkpoints are of regions that the list does not have",
             "Rows of the batch system may stay, others can be deleted; none is collected."),
            ("region", edits.deleted_regions, "checkpoints have lost their row in region", refresh),
            ("legal_dong", edits.without_dongs, "regions have no dong in legal_dong", refresh),
            ("region_succession", edits.without_successor,
             "abolished regions have no successor for their old addresses",
             "Restore region_succession from a backup; regions with new dong names have none."),
            ("search_query", edits.without_ledger,
             "completed regions have no searches in search_query",
             "Run `mohe new-round REGION…` to collect them again; their places stay."),
            ("places", lost or 0, "places that searches have found are not in places",
             "Run `mohe replay` to rebuild them from the stored answers, without a call."),
        )
        if count
    ]  # fmt: skip
    yield from found or [_ok("tables", "no row is missing or belongs to nothing")]


def _regions(app: App) -> Finding:
    last, progress = app.regions.last_refresh(), app.checkpoints.progress()
    known = app.regions.leaf_names()
    if last is None and not known:
        return _ok("regions", "none yet; the first run, or `mohe up`, downloads the list")
    if last is None or not known:
        lost = f"{len(known):,}, of a list that region_refresh does not know"
        if last is not None:
            lost = f"none in the table region, which had the list of {last.as_of}"
        again = "The next batch, or the job refresh_regions, downloads it again."
        return _warning("regions", lost, again)
    source = "the API" if last.source == "api" else "the bundled snapshot"
    stated = f"{progress.total:,}, by the list of {last.as_of} from {source}"
    if unconfirmed := app.regions.unconfirmed():
        found = f"{stated}. Not believed since {unconfirmed.first_seen_on}: {unconfirmed.reason}"
        return _warning("regions", found, unconfirmed.advice)
    if last.source != "api":
        return _warning(
            "regions",
            stated,
            "The list could not be downloaded: run refresh_regions when data.go.kr answers.",
        )
    if progress.given_up:
        return _warning(
            "regions",
            f"{stated}; {progress.given_up:,} FAILED, without automatic retry",
            "See `mohe status`, then `mohe retry`.",
        )
    return _ok("regions", stated)


def _runs(app: App) -> Finding:
    runs = app.overview().runs
    silent = [run.execution_id[:8] for run in runs if run.life == "silent"]
    alive = sum(run.life == "alive" for run in runs)
    if silent:
        return _warning(
            "runs",
            f"stale, without a heartbeat for MOHE_LEASE_SECONDS: {', '.join(silent)}",
            "The next sensor tick or run reclaims their regions; `mohe release` does it now.",
        )  # fmt: skip
    return _ok("runs", f"{alive} alive")
