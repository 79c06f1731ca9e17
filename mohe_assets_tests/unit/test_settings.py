"""Every bad value is refused with one sentence that names its variable, and no sentence shows a
key.
"""

import datetime as dt
from pathlib import Path

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.clients.base_url import is_loopback
from mohe_assets.errors import SettingsError
from mohe_assets.settings import DEFAULT_KEYWORDS, Settings, variable

SECRET = "do-not-show-me"
POSITIVE = (
    "MOHE_CALLS_PER_SECOND",
    "MOHE_DAILY_QUOTA",
    "MOHE_MONTHLY_QUOTA",
    "MOHE_MAX_CALLS_PER_REGION",
    "MOHE_MAX_ATTEMPTS",
    "MOHE_LEASE_SECONDS",
    "MOHE_HEARTBEAT_SECONDS",
    "MOHE_REGIONS_PER_RUN",
    "MOHE_RUNS_IN_FLIGHT",
    "MOHE_SEARCHES_IN_FLIGHT",
    "MOHE_RETRY_SECONDS",
    "MOHE_REGION_REFRESH_DAYS",
    "MOHE_HTTP_TIMEOUT_SECONDS",
)
FLAGS = ("CHECKPOINT_ENABLED", "CHECKPOINT_AUTO_RESUME", "BATCH_AUTO_INITIALIZATION")
BASE_URLS = ("MOHE_GOVERNMENT_API_URL", "MOHE_NAVER_API_URL", "MOHE_NAVER_HUB_URL")
DATABASE_URLS = ("MOHE_DATABASE_URL", "MOHE_DAGSTER_DATABASE_URL")
KEYS = (
    "GOVT_API_KEY",
    "NAVER_CLIENT_ID",
    "NAVER_CLIENT_SECRET",
    "NCP_APIGW_API_KEY_ID",
    "NCP_APIGW_API_KEY",
)


def load(**variables: str) -> Settings:
    return settings_module.load(variables)


def refusal(**variables: str) -> str:
    """The sentence with which the variables are refused; checks what holds for all of them."""
    with pytest.raises(SettingsError) as caught:
        load(**variables)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert ". " not in sentence.replace("...", "")
    assert SECRET not in sentence
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "pydantic's own error shows the values"
    return sentence


@pytest.mark.parametrize(
    "value", ["0", "-1", "-5\n", "nan", "inf", "-inf", "1e999", "many", "1,000", "0x10", "9" * 30]
)
@pytest.mark.parametrize("variable", POSITIVE)
def test_a_limit_that_is_no_positive_number_is_refused_by_name(variable: str, value: str) -> None:
    assert refusal(**{variable: value}).startswith(f"{variable} is ")


@pytest.mark.parametrize("value", ["maybe", "2", "-1", "nein", "true false"])
@pytest.mark.parametrize("variable", FLAGS)
def test_a_flag_that_is_neither_true_nor_false_is_refused_by_name(
    variable: str, value: str
) -> None:
    assert refusal(**{variable: value}).startswith(f"{variable} is '{value}'; allowed are ")


@pytest.mark.parametrize(
    ("value", "meant"), [("TRUE", True), (" 1 ", True), ("Yes", True), ("on", True), ("off", False)]
)
def test_a_flag_is_read_in_its_usual_spellings(value: str, *, meant: bool) -> None:
    assert load(CHECKPOINT_ENABLED=value).checkpoint_enabled is meant


@pytest.mark.parametrize(
    "value",
    [
        "openapi.naver.com",
        "//openapi.naver.com",
        "ftp://openapi.naver.com",
        "https://",
        "https://openapi.naver.com/v1",
        f"https://openapi.naver.com?key={SECRET}",
        "https://openapi.naver.com#top",
        f"https://someone:{SECRET}@openapi.naver.com",
        f"https://:{SECRET}@openapi.naver.com",
        "https://openapi.naver.com:port",
        "https://openapi.naver.com:0",
        "https://openapi.naver.com:70000",
        "https://open api.naver.com",
        "http://[bad",
    ],
)
@pytest.mark.parametrize("variable", BASE_URLS)
def test_a_base_url_with_more_or_less_than_scheme_host_and_port_is_refused_by_name(
    variable: str, value: str
) -> None:
    assert (
        refusal(**{variable: value})
        == f"{variable} has to be http(s)://host[:port] and nothing more."
    )


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("http://localhost:8900", "http://localhost:8900"),
        (" https://api.example/ ", "https://api.example"),
        ("http://[::1]:8900", "http://[::1]:8900"),
    ],
)
def test_a_base_url_is_kept_without_its_slash(value: str, kept: str) -> None:
    assert load(MOHE_NAVER_API_URL=value).naver_api_url == kept


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            f"mysql://someone:{SECRET}@host/mohe",
            "has to be postgresql://user:password@host:port/database",
        ),
        (
            f"postgresql://someone:{SECRET}@host/mohe?no_such_option=1",
            "has the parameter no_such_option, which PostgreSQL's client does not know; remove it",
        ),
    ],
)
@pytest.mark.parametrize("variable", DATABASE_URLS)
def test_a_database_url_that_psql_could_not_read_is_refused_without_its_password(
    variable: str, value: str, reason: str
) -> None:
    assert refusal(**{variable: value}) == f"{variable} {reason}."


def test_a_database_url_keeps_its_password_and_its_options() -> None:
    value = f"postgres://someone:{SECRET}@host:5433/mohe?sslmode=require"
    kept = load(MOHE_DATABASE_URL=value).database_url
    assert kept is not None
    assert (
        kept.get_secret_value() == f"postgresql://someone:{SECRET}@host:5433/mohe?sslmode=require"
    )


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("NAVER_CLIENT_ID", "NAVER_CLIENT_SECRET"),
        ("NAVER_CLIENT_SECRET", "NAVER_CLIENT_ID"),
        ("NCP_APIGW_API_KEY_ID", "NCP_APIGW_API_KEY"),
        ("NCP_APIGW_API_KEY", "NCP_APIGW_API_KEY_ID"),
    ],
)
def test_half_a_pair_of_keys_is_refused_by_both_names(given: str, missing: str) -> None:
    assert (
        refusal(**{given: SECRET, missing: " "})
        == f"{given} is set but {missing} is not; set both or neither."
    )


@pytest.mark.parametrize(
    "value", [f"two words{SECRET}", f"two\n{SECRET}", f"키{SECRET}", f"{SECRET}\x1b[0m"]
)
@pytest.mark.parametrize("variable", KEYS)
def test_a_key_that_no_header_could_carry_is_refused_without_being_shown(
    variable: str, value: str
) -> None:
    assert refusal(**{variable: value}).startswith(f"{variable} has a space")


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    settings = load(GOVT_API_KEY=f"  {SECRET}\n", MOHE_DAILY_QUOTA=" 7\n", MOHE_HOME=" here ")
    assert settings.require_government_key() == SECRET
    assert settings.daily_quota == 7
    assert settings.home == Path.cwd() / "here"


@pytest.mark.parametrize("value", ["", " ", ",", "카페,,공원", "카페, ", "x" * 51, "카페,!!!"])
def test_a_keyword_list_with_a_blank_or_useless_word_is_refused_by_name(value: str) -> None:
    assert refusal(MOHE_SEARCH_KEYWORDS=value).startswith("MOHE_SEARCH_KEYWORDS ")


def test_a_keyword_said_twice_is_searched_once() -> None:
    assert load(MOHE_SEARCH_KEYWORDS="카페, 공원 ,카페,북  카페,북 카페").search_keywords == (
        "카페",
        "공원",
        "북 카페",
    )


@pytest.mark.parametrize("variable", ["CHECKPOINT_BATCH_NAME", "CHECKPOINT_REGION_TYPE"])
def test_a_name_too_long_for_its_column_is_refused(variable: str) -> None:
    assert refusal(**{variable: "x" * 51}).startswith(f"{variable} is ")


def test_a_heartbeat_over_half_the_lease_is_refused_by_both_names() -> None:
    sentence = refusal(MOHE_LEASE_SECONDS="20", MOHE_HEARTBEAT_SECONDS="10.5")
    assert "MOHE_HEARTBEAT_SECONDS is 10.5" in sentence
    assert "MOHE_LEASE_SECONDS (20)" in sentence
    assert load(MOHE_LEASE_SECONDS="20", MOHE_HEARTBEAT_SECONDS="10").heartbeat_seconds == 10


def test_the_home_of_a_user_that_does_not_exist_is_refused_by_name() -> None:
    assert refusal(MOHE_HOME="~nobody-of-this-name/mohe").startswith("MOHE_HOME is ")


def test_the_catalog_is_in_the_home_unless_it_has_a_folder_of_its_own() -> None:
    assert load(MOHE_HOME="/somewhere").catalog_folder == Path("/somewhere/catalog")
    assert (
        load(MOHE_HOME="/somewhere", MOHE_CATALOG_DIR="here").catalog_folder
        == Path("here").absolute()
    )
    assert refusal(MOHE_CATALOG_DIR="~nobody-of-this-name/mohe").startswith("MOHE_CATALOG_DIR is ")


def test_the_defaults_are_those_users_were_promised() -> None:
    defaults = load()
    assert (defaults.checkpoint_enabled, defaults.checkpoint_auto_resume) == (True, True)
    assert defaults.batch_auto_initialization is False
    assert (defaults.checkpoint_batch_name, defaults.checkpoint_region_type) == (
        "place-ingestion-batch",
        "sigungu",
    )
    assert defaults.home == Path(".mohe").absolute()
    assert defaults.government_api_url == "https://apis.data.go.kr"
    assert defaults.naver_api_url == "https://openapi.naver.com"
    assert defaults.naver_hub_url == "https://naverapihub.apigw.ntruss.com"
    assert defaults.lease_seconds == 60
    assert defaults.daily_quota == 25_000
    assert ",".join(defaults.search_keywords) == (
        "카페,레스토랑,음식점,베이커리,디저트,공원,박물관,미술관,서점,영화관,헬스장,요가,필라테스,갤러리,문화센터"
    )
    assert defaults.calls_per_second == 10
    assert not defaults.uses_hub
    assert [getattr(defaults, key.lower()) for key in KEYS] == [None] * len(KEYS)


def test_a_variable_set_to_nothing_counts_as_not_set_but_for_the_keywords() -> None:
    names = [variable(name) for name in Settings.model_fields]
    empty = {name: "" for name in names if name != "MOHE_SEARCH_KEYWORDS"}
    assert load(**empty) == load(**dict.fromkeys(empty, " \t")) == load()
    assert refusal(MOHE_SEARCH_KEYWORDS="").startswith("MOHE_SEARCH_KEYWORDS is ''")
    assert load().search_keywords == DEFAULT_KEYWORDS


def test_both_hub_keys_mean_the_hub_and_its_rate() -> None:
    hub = load(
        NCP_APIGW_API_KEY_ID="a",
        NCP_APIGW_API_KEY="b",
        NAVER_CLIENT_ID="c",
        NAVER_CLIENT_SECRET="d",
    )
    assert hub.uses_hub
    assert hub.calls_per_second == 50
    assert load(MOHE_CALLS_PER_SECOND="3.5").calls_per_second == 3.5


def test_a_collection_asks_for_the_keys_it_lacks_by_name() -> None:
    with pytest.raises(SettingsError, match=r"^GOVT_API_KEY is not set; .*\.$"):
        load(NAVER_CLIENT_ID="a", NAVER_CLIENT_SECRET="b").require_collection_keys()
    with pytest.raises(
        SettingsError,
        match=r"^NAVER_CLIENT_ID and NAVER_CLIENT_SECRET are not set; .*NCP_APIGW_API_KEY.*\.$",
    ):
        load(GOVT_API_KEY="a").require_collection_keys()
    load(
        GOVT_API_KEY="a", NCP_APIGW_API_KEY_ID="b", NCP_APIGW_API_KEY="c"
    ).require_collection_keys()


def test_no_key_shows_when_the_settings_are_printed() -> None:
    settings = load(
        **dict.fromkeys(KEYS, SECRET),
        MOHE_DATABASE_URL=f"postgresql://someone:{SECRET}@host/mohe",
        MOHE_DAGSTER_DATABASE_URL=f"postgresql://someone:{SECRET}@host/dagster",
    )
    assert (
        SECRET
        not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )


@pytest.mark.parametrize("value", ["xml", "jsonl", "true"])
def test_a_log_format_that_does_not_exist_is_refused_and_logs_are_text_until_then(
    value: str,
) -> None:
    assert (
        refusal(MOHE_LOG_FORMAT=value)
        == f"MOHE_LOG_FORMAT is '{value}'; allowed are text and json."
    )
    assert settings_module.log_format({"MOHE_LOG_FORMAT": value}) == "text"


def test_a_log_format_is_read_in_any_case_without_the_other_settings() -> None:
    assert load(MOHE_LOG_FORMAT=" JSON ").log_format == "json"
    assert (
        settings_module.log_format({"MOHE_LOG_FORMAT": "Json", "MOHE_DAILY_QUOTA": "nonsense"})
        == "json"
    )


KST = dt.timezone(dt.timedelta(hours=9))


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (dt.datetime(2026, 12, 31, 23, 59, 59, tzinfo=KST), ""),
        (dt.datetime(2026, 12, 31, 15, tzinfo=dt.UTC), "ends on 2027-06-30 at 24:00 KST"),
        (dt.datetime(2027, 6, 30, 23, 59, 59, tzinfo=KST), "ends on 2027-06-30 at 24:00 KST"),
        (dt.datetime(2027, 6, 30, 15, tzinfo=dt.UTC), "ended on 2027-06-30 at 24:00 KST"),
    ],
)
def test_who_uses_the_classic_api_is_told_of_its_end_in_its_last_half_year(
    moment: dt.datetime, said: str
) -> None:
    sentence = settings_module.classic_ends(moment, uses_hub=False)
    assert (sentence is None) == (said == "")
    if sentence is not None:
        assert said in sentence
        assert "NCP_APIGW_API_KEY_ID and NCP_APIGW_API_KEY" in sentence
    assert settings_module.classic_ends(moment, uses_hub=True) is None


@pytest.mark.parametrize(
    ("told", "searches"),
    [
        ({}, 8),
        ({"MOHE_CALLS_PER_SECOND": "50"}, 8),
        ({"MOHE_CALLS_PER_SECOND": "200"}, 20),
        ({"MOHE_CALLS_PER_SECOND": "5000"}, 224),
        ({"MOHE_CALLS_PER_SECOND": "5000", "MOHE_SEARCHES_IN_FLIGHT": "3"}, 3),
    ],
)
def test_searches_in_flight_follow_from_the_rate_unless_they_are_told(
    told: dict[str, str], searches: int
) -> None:
    assert settings_module.load(told).searches_in_flight == searches


def test_a_secret_can_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    key = load(GOVT_API_KEY_FILE=str(file)).govt_api_key
    assert key is not None
    assert key.get_secret_value() == SECRET
    assert refusal(GOVT_API_KEY="other", GOVT_API_KEY_FILE=str(file)) == (
        "GOVT_API_KEY and GOVT_API_KEY_FILE are both set; set one of them."
    )
    missing = tmp_path / "none"
    assert refusal(GOVT_API_KEY_FILE=str(missing)) == (
        f"GOVT_API_KEY_FILE is '{missing}', which cannot be read: No such file or directory."
    )
    file.write_bytes(b"\xff")
    assert refusal(GOVT_API_KEY_FILE=str(file)).endswith("cannot be read: it is no text.")


def test_names_of_the_page_are_hosts() -> None:
    assert load(MOHE_WEB_HOSTS="A.example, b.example:8443").web_hosts == (
        "a.example",
        "b.example:8443",
    )
    assert refusal(MOHE_WEB_HOSTS="https://a.example").startswith(
        "MOHE_WEB_HOSTS is 'https://a.example'; "
    )


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("Localhost", True),
        ("10.0.0.5", False),
        ("localhost.example", False),
    ],
)
def test_only_this_machine_reaches_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local
