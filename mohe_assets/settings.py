"""All settings, read from the environment and `.env`; no socket or database is opened.

Demo, tests and production differ in these values only.
"""

import contextlib
import datetime as dt
import io
import math
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self, cast, get_args

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from mohe_assets.clients.base_url import HOST, checked_base_url
from mohe_assets.clients.credentials import is_sendable
from mohe_assets.domain.kst import KST
from mohe_assets.errors import SettingsError
from mohe_assets.store.database_url import canonical

DEFAULT_KEYWORDS = (
    "카페", "레스토랑", "음식점", "베이커리", "디저트", "공원", "박물관", "미술관",
    "서점", "영화관", "헬스장", "요가", "필라테스", "갤러리", "문화센터",
)  # fmt: skip
CLASSIC_CALLS_PER_SECOND = 10.0
HUB_CALLS_PER_SECOND = 50.0
MAX_KEYWORD_LENGTH = 50
LOG_FORMATS = ("text", "json")
CLASSIC_ENDS_AT = dt.datetime(2027, 7, 1, tzinfo=KST)  # 2027-06-30 24:00
CLASSIC_WARNS_FROM = dt.datetime(2027, 1, 1, tzinfo=KST)
# Default of MOHE_SEARCHES_IN_FLIGHT: rate × SEARCH_SECONDS (twice the APIs' latency), within these
# bounds. The lower bound suffices for the limits of both APIs; the upper limits the searches that a
# kill repeats, and is more than a process can use.
SEARCH_SECONDS = 0.1
FEWEST_IN_FLIGHT, MOST_IN_FLIGHT = 8, 224

# The simulator's keys (simulator/config.py); no real API issues them.
SIMULATOR_CLIENT_IDS = ("demo-client-id", "demo-hub-key-id")
SIMULATOR_GOVERNMENT_KEY = "demo-govt-key+/=="

_TRUE = ("true", "1", "yes", "on")
_FALSE = ("false", "0", "no", "off")


# Variables of the previous batch system and of the APIs' keys have no prefix.
_WITHOUT_PREFIX = ("checkpoint_", "batch_", "govt_", "naver_client_", "ncp_")


def variable(field: str) -> str:
    """Return the environment variable of a field of `Settings`."""
    name = field.removeprefix("configured_").upper()
    return name if field.startswith(_WITHOUT_PREFIX) else f"MOHE_{name}"


class Settings(BaseSettings):
    """All settings. A field's alias is its environment variable, see `variable`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, alias_generator=variable
    )

    checkpoint_enabled: bool = True
    checkpoint_auto_resume: bool = True
    checkpoint_batch_name: str = "place-ingestion-batch"
    checkpoint_region_type: str = "sigungu"
    batch_auto_initialization: bool = False

    govt_api_key: SecretStr | None = None
    naver_client_id: SecretStr | None = None
    naver_client_secret: SecretStr | None = None
    ncp_apigw_api_key_id: SecretStr | None = None
    ncp_apigw_api_key: SecretStr | None = None

    home: Path = Field(default=Path(".mohe"), validate_default=True)
    catalog_dir: Path | None = None
    dagster_yaml: Path | None = None
    database_url: SecretStr | None = None
    dagster_database_url: SecretStr | None = None
    collector_password: SecretStr | None = None
    reader_password: SecretStr | None = None
    government_api_url: str = "https://apis.data.go.kr"
    naver_api_url: str = "https://openapi.naver.com"
    naver_hub_url: str = "https://naverapihub.apigw.ntruss.com"

    search_keywords: Annotated[tuple[str, ...], NoDecode] = DEFAULT_KEYWORDS
    configured_calls_per_second: float | None = Field(default=None, gt=0, le=10_000)
    daily_quota: int = Field(default=25_000, gt=0, le=100_000_000)
    monthly_quota: int = Field(default=775_000, gt=0, le=1_000_000_000)
    max_calls_per_region: int = Field(default=400, gt=0, le=100_000)
    refine: bool = True
    max_attempts: int = Field(default=5, gt=0, le=1_000)
    lease_seconds: float = Field(default=60, ge=2, le=3_600)
    heartbeat_seconds: float = Field(default=5, ge=0.2, le=600)
    regions_per_run: int = Field(default=64, gt=0, le=10_000)
    runs_in_flight: int = Field(default=3, gt=0, le=1_000)
    configured_searches_in_flight: int | None = Field(default=None, gt=0, le=256)
    retry_seconds: float = Field(default=60, gt=0, le=86_400)
    region_refresh_days: float = Field(default=7, gt=0, le=3_650)
    # Retention, in days; 0 keeps everything.
    keep_ledger_days: int = Field(default=90, ge=0, le=36_500)
    keep_run_days: int = Field(default=30, ge=0, le=36_500)
    http_timeout_seconds: float = Field(default=10, gt=0, le=300)
    log_format: Literal["text", "json"] = "text"
    # Of the web page: host names besides those of this host, and the address of a container's port.
    web_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    web_address: str | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Disable pydantic's own sources; `load()` reads the environment or a test's mapping."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @field_validator(
        "checkpoint_enabled",
        "checkpoint_auto_resume",
        "batch_auto_initialization",
        "refine",
        mode="before",
    )
    @classmethod
    def _flag(cls, value: object) -> object:
        text = str(value).strip().lower()
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError(f"is {value!r}; allowed are {', '.join(_TRUE)} and {', '.join(_FALSE)}")

    @field_validator("log_format", mode="before")
    @classmethod
    def _log_format(cls, value: object) -> object:
        if (text := str(value).strip().lower()) not in LOG_FORMATS:
            raise ValueError(f"is {value!r}; allowed are {' and '.join(LOG_FORMATS)}")
        return text

    @field_validator("checkpoint_batch_name", "checkpoint_region_type")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value.strip() or len(value) > 50:  # noqa: PLR2004 - width of the narrower column
            raise ValueError(f"is {value!r}; a name of 1 to 50 characters is needed")
        return value.strip()

    @field_validator("government_api_url", "naver_api_url", "naver_hub_url")
    @classmethod
    def _base_url(cls, value: str) -> str:
        return checked_base_url(value)

    @field_validator("database_url", "dagster_database_url")
    @classmethod
    def _database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return SecretStr(canonical(value.get_secret_value()))

    @field_validator(
        "govt_api_key",
        "naver_client_id",
        "naver_client_secret",
        "ncp_apigw_api_key_id",
        "ncp_apigw_api_key",
    )
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        if text and not is_sendable(text):
            raise ValueError("has a space, a line break or a letter that no key has; copy it again")
        return value

    @field_validator("home", "catalog_dir")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        try:
            return value.expanduser().absolute() if value else None
        except RuntimeError:
            raise ValueError(f"is '{value}'; there is no such user's home folder") from None

    @field_validator("search_keywords", mode="before")
    @classmethod
    def _keywords(cls, value: object) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else list(cast("tuple[str, ...]", value))
        keywords = tuple(" ".join(part.split()) for part in parts)
        if any(not keyword or len(keyword) > MAX_KEYWORD_LENGTH for keyword in keywords):
            raise ValueError(
                f"is {value!r}; it has to be a comma-separated list of words "
                f"of 1 to {MAX_KEYWORD_LENGTH} characters, such as 카페,공원"
            )
        if unknown := [keyword for keyword in keywords if not any(c.isalnum() for c in keyword)]:
            raise ValueError(f"has {unknown[0]!r}, which is no word to search for")
        return tuple(dict.fromkeys(keywords))

    @field_validator("web_hosts", mode="before")
    @classmethod
    def _hosts(cls, value: object) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else list(cast("tuple[str, ...]", value))
        hosts = tuple(part.strip().lower() for part in parts)
        if any(host != "*" and not HOST.fullmatch(host) for host in hosts):
            raise ValueError(f"is {value!r}; it has to be a list of host or host:port, or *")
        return hosts

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        for pair in (
            ("naver_client_id", "naver_client_secret"),
            ("ncp_apigw_api_key_id", "ncp_apigw_api_key"),
        ):
            # Set variables first.
            first, second = sorted(pair, key=lambda name: getattr(self, name) is None)
            if (getattr(self, first) is None) != (getattr(self, second) is None):
                raise ValueError(
                    f"{variable(first)} is set but {variable(second)} is not; set both or neither"
                )
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"MOHE_HEARTBEAT_SECONDS is {self.heartbeat_seconds:g}; it may be at most half of "
                f"MOHE_LEASE_SECONDS ({self.lease_seconds:g}), or a live run would lose its leases"
            )
        return self

    @cached_property
    def uses_hub(self) -> bool:
        """Whether NAVER API HUB is used instead of the classic API: its keys are set."""
        return self.ncp_apigw_api_key_id is not None

    @property
    def simulated(self) -> bool | None:
        """Whether the keys are the simulator's; None if none are set. Search keys have priority."""
        search = self.ncp_apigw_api_key_id or self.naver_client_id
        if search is not None:
            return search.get_secret_value() in SIMULATOR_CLIENT_IDS
        return (
            self.govt_api_key.get_secret_value() == SIMULATOR_GOVERNMENT_KEY
            if self.govt_api_key
            else None
        )

    @property
    def calls_per_second(self) -> float:
        """Calls per second, shared by all processes."""
        if self.configured_calls_per_second is not None:
            return self.configured_calls_per_second
        return HUB_CALLS_PER_SECOND if self.uses_hub else CLASSIC_CALLS_PER_SECOND

    @property
    def searches_in_flight(self) -> int:
        """Maximum of searches in flight per run."""
        if self.configured_searches_in_flight is not None:
            return self.configured_searches_in_flight
        return min(
            MOST_IN_FLIGHT, max(FEWEST_IN_FLIGHT, math.ceil(self.calls_per_second * SEARCH_SECONDS))
        )

    @property
    def catalog_folder(self) -> Path:
        """Absolute path of the folder for the nationwide files and the report."""
        return self.catalog_dir or self.home / "catalog"

    def require_collection_keys(self) -> None:
        """Raise SettingsError unless all keys of a collection are set."""
        self.require_government_key()
        self.require_place_keys()

    def require_place_keys(self) -> None:
        """Raise SettingsError unless the keys of a search API are set."""
        if self.naver_client_id is None and self.ncp_apigw_api_key_id is None:
            raise SettingsError(
                "NAVER_CLIENT_ID and NAVER_CLIENT_SECRET are not set; set both (classic local "
                "search), or NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY (NAVER API HUB)."
            )

    def require_government_key(self) -> str:
        """Return the service key of the region list; raises SettingsError if it is not set."""
        if self.govt_api_key is None:
            raise SettingsError(
                "GOVT_API_KEY is not set; it has to hold the service key of "
                "행정안전부_행정표준코드_법정동코드 from data.go.kr (Encoding or Decoding form)."
            )
        return self.govt_api_key.get_secret_value()


# Variables with secrets; NAME_FILE can name a file with the value instead.
SECRETS = frozenset(
    variable(name)
    for name, field in Settings.model_fields.items()
    if SecretStr in get_args(field.annotation)
)
# Keys and passwords that web server and daemon do not need.
KEYS = frozenset(
    f"{name}{suffix}" for name in SECRETS if not name.endswith("_URL") for suffix in ("", "_FILE")
)


def classic_ends(now: dt.datetime, uses_hub: bool) -> str | None:
    """Return the warning that the classic search API ends; None before 2027 and with the HUB.

    `now` is aware.
    """
    if uses_hub or now < CLASSIC_WARNS_FROM:
        return None
    instead = (
        "set NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY (NAVER API HUB); "
        "the collection continues where it stands"
    )
    if now >= CLASSIC_ENDS_AT:
        return f"Naver's classic local search ended on 2027-06-30 at 24:00 KST: {instead}."
    return f"Naver's classic local search ends on 2027-06-30 at 24:00 KST: {instead}."


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process."""
    return os.environ


# In the working folder; Dagster's commands read it, too.
DOTENV = ".env"
# Variables that `read_dotenv` has added to the environment of this process.
_added: dict[str, str] = {}


def read_dotenv() -> None:
    """Add the variables of `.env` to the environment of this process.

    A variable of the environment, even an empty value, has priority. Raises SettingsError if the
    file cannot be read.
    """
    for name, value in _dotenv().items():
        if name not in os.environ and not _has_other_form(name, os.environ):
            os.environ[name] = _added[name] = value


def _has_other_form(name: str, environ: Mapping[str, str]) -> bool:
    """Whether the secret of a variable is set in its other form: file (NAME_FILE) or value."""
    value = name.removesuffix("_FILE")
    other = value if name != value else f"{name}_FILE"
    return value in SECRETS and bool(environ.get(other, "").strip())


def _dotenv() -> dict[str, str]:
    """Return the variables of `.env`; raises SettingsError for a line that Dagster would skip."""
    found: dict[str, str] = {}
    if Path(DOTENV).is_file():
        for line, name in dotenv_lines():
            if name is None:
                raise SettingsError(f"{DOTENV}, line {line}, is not NAME=value; correct it.")
        found = {name: value for name, value in dotenv_values(DOTENV).items() if value is not None}
    return found


def dotenv_lines() -> Iterator[tuple[int, str | None]]:
    """Yield (line number, variable) for lines of `.env`; the name of a malformed line is None."""
    try:
        text = Path(DOTENV).read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror
    except UnicodeDecodeError:
        reason = "it is no text in UTF-8"
    else:
        for binding in parse_stream(io.StringIO(text)):
            text = binding.original.string  # begins with the blank lines before it
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            if binding.error or (binding.key is not None and binding.value is not None):
                yield line, None if binding.error else binding.key
        return
    raise SettingsError(f"{DOTENV} cannot be read: {reason}.")


def origin(name: str, environ: Mapping[str, str] | None = None) -> str:
    """Return the origin of a variable's value: default, environment, or its line of `.env`.

    For a secret in a file, it is the origin of NAME_FILE. Without `environ`, it is the origin in
    this process after `load`.
    """
    there = os.environ if environ is None else environ
    form = f"{name}_FILE" if name in SECRETS and there.get(f"{name}_FILE", "").strip() else name
    if not there.get(form, "").strip():
        return "default"
    place = "environment"
    if environ is None and form in _added and os.environ[form] == _added[form]:
        place = f"{DOTENV}, line {max(line for line, key in dotenv_lines() if key == form)}"
    return place if form == name else f"{form} in {place}"


def overridden(name: str) -> bool:
    """Whether `.env` has a value that differs from the environment; Dagster would use it."""
    written = _dotenv().get(name)
    return written is not None and written != os.environ.get(name, "")


def command_environment() -> Mapping[str, str]:
    """Return the environment of this process with `.env`; raises SettingsError."""
    read_dotenv()
    return os.environ


def log_format(environ: Mapping[str, str] | None = None) -> str:
    """Return MOHE_LOG_FORMAT, for log lines about settings that `load` refuses."""
    if environ is None:
        environ = os.environ
        with contextlib.suppress(SettingsError):  # `load` raises it
            environ = {**_dotenv(), **environ}
    value = environ.get("MOHE_LOG_FORMAT", "").strip().lower()
    return value if value in LOG_FORMATS else LOG_FORMATS[0]


def dagster_database_url() -> str | None:
    """Return MOHE_DAGSTER_DATABASE_URL, for processes that work in spite of other bad settings."""
    if not (value := command_environment().get("MOHE_DAGSTER_DATABASE_URL", "").strip()):
        return None
    try:
        return canonical(value)
    except ValueError as error:
        message = f"MOHE_DAGSTER_DATABASE_URL {error}."
    raise SettingsError(message)


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of the environment and `.env`, or of a mapping only.

    Raises SettingsError, which names the first bad variable.
    """
    source = _with_files(command_environment() if environ is None else environ)
    given = {name: source.get(name, "").strip() for name in map(variable, Settings.model_fields)}
    values = {name: value for name, value in given.items() if value}
    if "MOHE_SEARCH_KEYWORDS" in source:  # set to nothing is a mistake, not the default
        values.setdefault("MOHE_SEARCH_KEYWORDS", source["MOHE_SEARCH_KEYWORDS"])
    try:
        return Settings(**values)  # type: ignore[arg-type]
    except ValidationError as error:
        message = _sentence(error)
    # Raised outside the handler: pydantic's error shows the input, which may be a key.
    raise SettingsError(message)


def _with_files(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with the secrets of files named by NAME_FILE, as containers have."""
    found = dict(environ)
    for name in sorted(SECRETS):
        path = environ.get(f"{name}_FILE", "").strip()
        if not path:
            continue
        if environ.get(name, "").strip():
            raise SettingsError(f"{name} and {name}_FILE are both set; set one of them.")
        try:
            found[name] = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            reason = error.strerror
        except UnicodeDecodeError:
            reason = "it is no text"
        else:
            continue
        # Raised outside the handler: the decoder's error contains the file's content.
        raise SettingsError(f"{name}_FILE is '{path}', which cannot be read: {reason}.")
    return found


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    if not first["loc"]:
        return f"{context['error']}."
    name = str(first["loc"][0])
    if first["type"] == "value_error":
        return f"{name} {context['error']}."
    bounds = {"greater_than": "gt", "less_than_equal": "le", "greater_than_equal": "ge"}
    if first["type"] in bounds:
        word = {"gt": "greater than", "le": "at most", "ge": "at least"}[bounds[first["type"]]]
        return (
            f"{name} is {first['input']}; it has to be {word} {context[bounds[first['type']]]:g}."
        )
    kind = "a whole number" if first["type"].startswith("int") else "a number"
    return f"{name} is {first['input']!r}; it has to be {kind}."
