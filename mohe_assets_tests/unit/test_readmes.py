"""README.md and README.ko.md have the same sections, commands and settings, and true figures."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from mohe_assets.settings import CLASSIC_CALLS_PER_SECOND, HUB_CALLS_PER_SECOND, Settings, variable
from mohe_assets.settings import FEWEST_IN_FLIGHT as FEWEST
from mohe_assets_tests.support.measurements import result
from mohe_assets_tests.support.pages import (
    blocks,
    differences,
    headings,
    numbers_in,
    section,
    table_rows,
    text_of,
)

READMES = ("README.md", "README.ko.md")
SETTINGS = {"README.md": "Settings", "README.ko.md": "설정"}
FIGURES = {"README.md": "Figures", "README.ko.md": "측정값"}
# Settings that are described on other pages: of containers, and of roles.
ELSEWHERE = {"MOHE_COLLECTOR_PASSWORD", "MOHE_READER_PASSWORD", "MOHE_WEB_ADDRESS"}
# Defaults in words, as (English, Korean).
IN_WORDS: dict[str, tuple[str, str]] = {
    "MOHE_DATABASE_URL": ("embedded server", "내장 서버"),
    "MOHE_DAGSTER_DATABASE_URL": (
        "database `dagster` on the same server",
        "같은 서버의 데이터베이스 `dagster`",
    ),
    "MOHE_CATALOG_DIR": ("`$MOHE_HOME/catalog`", "`$MOHE_HOME/catalog`"),
    "MOHE_DAGSTER_YAML": ("the shipped one", "함께 들어 있는 파일"),
    "MOHE_WEB_HOSTS": ("none", "없음"),
    "MOHE_GOVERNMENT_API_URL": ("the real hosts", "실제 호스트"),
    "MOHE_NAVER_API_URL": ("the real hosts", "실제 호스트"),
    "MOHE_NAVER_HUB_URL": ("the real hosts", "실제 호스트"),
}


def commands(page: str) -> list[str]:
    """Return the command lines of all shell blocks, without comments."""
    lines = "\n".join(blocks(page, "sh", "bash")).splitlines()
    bare = [re.sub(r"\s+#\s.*|^#.*", "", line).strip() for line in lines]
    return [line for line in bare if line]


def settings_of(page: str) -> Iterator[tuple[str, str]]:
    """Yield each variable of the table of settings with its default as it is written."""
    for names, default, _ in table_rows(section(page, SETTINGS[page]))[1:]:
        variables = re.findall(r"`(\w+)`", names)
        defaults = default.split(", ") if default.count(", ") == len(variables) - 1 else [default]
        for place, name in enumerate(variables):
            yield name, defaults[place % len(defaults)]


def test_both_readmes_have_the_same_sections_in_the_same_order() -> None:
    levels = [[level for level, _ in headings(page)] for page in READMES]
    assert levels[0] == levels[1]
    parts = [
        re.findall(r"^##+ |^```\w*$|^!\[|^\|---", text_of(page), re.MULTILINE) for page in READMES
    ]
    assert parts[0] == parts[1], "headings, blocks, pictures and tables are in another order"


def test_both_readmes_have_the_same_commands_in_the_same_order() -> None:
    assert commands("README.md") == commands("README.ko.md")
    assert blocks("README.md", "sql") == blocks("README.ko.md", "sql")


def test_both_readmes_have_all_settings_in_the_same_order() -> None:
    english, korean = ([name for name, _ in settings_of(page)] for page in READMES)
    assert english == korean
    assert len(english) == len(set(english))
    assert set(english) == set(map(variable, Settings.model_fields)) - ELSEWHERE


def expected_default(name: str, page: str, field: Any) -> str:
    """Return the default of a setting as the table has to write it."""
    if name in IN_WORDS:
        return IN_WORDS[name][READMES.index(page)]
    match field.default:
        case None:
            return ""
        case bool() as flag:
            return str(flag).lower()
        case int() | float() as number:
            return f"{number:.15g}"
        case "text":
            return "text"
        case text:
            return f"`{text}`"


@pytest.mark.parametrize("page", READMES)
def test_the_defaults_of_the_settings_are_those_of_the_code(page: str) -> None:
    fields = {variable(name): field for name, field in Settings.model_fields.items()}
    in_sentences = {"MOHE_CALLS_PER_SECOND", "MOHE_SEARCHES_IN_FLIGHT", "MOHE_SEARCH_KEYWORDS"}
    written = dict(settings_of(page))
    wrong = {
        name: f"{text!r} is written, {expected!r} is the default"
        for name, text in written.items()
        if name not in in_sentences
        and text != (expected := expected_default(name, page, fields[name]))
    }
    assert wrong == {}
    rates = [CLASSIC_CALLS_PER_SECOND, HUB_CALLS_PER_SECOND]
    assert differences(numbers_in(written["MOHE_CALLS_PER_SECOND"]), rates) == []
    assert numbers_in(written["MOHE_SEARCHES_IN_FLIGHT"]) == [str(FEWEST)]
    keywords = Settings.model_fields["search_keywords"].default
    assert keywords[0] in written["MOHE_SEARCH_KEYWORDS"]
    assert keywords[-1] in written["MOHE_SEARCH_KEYWORDS"]
    assert ("fifteen", "열다섯")[READMES.index(page)] in written["MOHE_SEARCH_KEYWORDS"]
    assert len(keywords) == 15


@pytest.mark.parametrize("page", READMES)
def test_the_figures_are_those_that_were_measured(page: str) -> None:
    peers, recovery = result("peers"), result("recovery")
    zero, distant = peers.rates("no latency, no limit"), peers.rates("60 ms, no limit")
    slow, fast = peers.shares("60 ms, limit 10/s"), peers.shares("60 ms, limit 50/s")
    batch, sensor, dlt, scrapy = (
        "mohe-assets, batch job",
        "mohe-assets, sensor-driven",
        "dlt, 48 workers",
        "Scrapy with JOBDIR",
    )
    killed = peers.raw["killed"]
    expected = [
        *(zero[name] for name in (batch, dlt, scrapy)),
        60,
        distant[batch],
        distant[batch] / distant["ceiling: calls and COPY only"],
        *(10, 50, slow[batch], fast[batch], slow[sensor], fast[sensor]),
        killed[batch]["searches"],
        *(killed[name]["repeated"]["median"] for name in (batch, dlt, scrapy)),
        killed[batch]["lost"]["median"],
        killed[batch]["seconds_to_next_new_call"]["median"],
        recovery.raw["calls per second"],
        recovery.raw["kills"],
        recovery.raw["searches"],
        recovery.raw["searches answered more than once"],
        recovery.raw["searches never answered"],
    ]
    points = section(page, FIGURES[page])
    points = points[points.index("\n- ") :]
    assert differences(numbers_in(points), expected) == []
    assert peers.raw["measured"][:10] in section(page, FIGURES[page])
    assert recovery.raw["measured"][:10] in section(page, FIGURES[page])
    assert recovery.raw["places identical to an uninterrupted collection"] == "yes"
