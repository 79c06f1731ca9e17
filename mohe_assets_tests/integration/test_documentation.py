"""The pages are true: the contract is the schema, queries run, commands, options, variables and
links exist.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import typer

from mohe_assets.cli import commands
from mohe_assets.defs.checks import QUALITY_CHECKS
from mohe_assets.store.database import Database
from mohe_assets.store.reads import quality
from mohe_assets_tests.support.databases import read
from mohe_assets_tests.support.pages import (
    BLOCK,
    ROOT,
    blocks,
    differences,
    headings,
    numbers_in,
    table_rows,
    text_of,
)

PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])
CONTRACT = ROOT / "docs" / "data_contract.md"
_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_VARIABLE = re.compile(r"\b(?:MOHE|CHECKPOINT|BATCH|GOVT|NAVER|NCP)_[A-Z_]*[A-Z]\b")
# Files in which a variable that a page names has to be known: read, passed on, or set.
_KNOWING = (
    "mohe_assets/**/*.py",
    "benchmarks/*.py",
    "docker-compose*.yml",
    ".env*example",
    "Dockerfile",
    "deploy/**/*",
    "dagster*.yaml",
)

COLUMNS = """
SELECT c.relname AS table, a.attname AS column, format_type(a.atttypid, a.atttypmod) AS type,
       NOT a.attnotnull AND c.relkind <> 'v' AS nullable
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'm') AND a.attnum > 0
 AND NOT a.attisdropped
"""
FUNCTIONS = (
    "SELECT DISTINCT proname AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
)
_SHORT = {"character varying": "varchar", "timestamp with time zone": "timestamptz"}


def documented() -> dict[tuple[str, str], tuple[str, bool]]:
    """(table, column) → (type, nullable), as the contract's tables have them."""
    found: dict[tuple[str, str], tuple[str, bool]] = {}
    table = ""
    for line in text_of("docs/data_contract.md").splitlines():
        if heading := re.fullmatch(r"### `(\w+)`", line):
            table = heading[1]
        elif line.startswith("## "):
            table = ""
        elif table and (
            row := re.match(r"\| `(\w+)` \| ([^|]+) \| (yes)? *\| (old|stable|internal) \|", line)
        ):
            assert (table, row[1]) not in found, f"{table}.{row[1]} is described twice"
            found[table, row[1]] = (row[2].strip(), bool(row[3]))
    return found


def live(database: Database) -> dict[tuple[str, str], tuple[str, bool]]:
    found = {}
    for row in read(database, COLUMNS):
        kind = row["type"]
        for long, short in _SHORT.items():
            kind = kind.replace(long, short)
        found[row["table"], row["column"]] = (kind, row["nullable"])
    return found


def test_the_contract_describes_every_column_of_the_database_and_no_other(
    database: Database,
) -> None:
    described, there = documented(), live(database)
    missing = [
        f"{table}.{column} {there[table, column][0]}"
        for table, column in there
        if (table, column) not in described
    ]
    assert not missing, f"docs/data_contract.md lacks {', '.join(sorted(missing))}"
    gone = [".".join(key) for key in described if key not in there]
    assert not gone, (
        f"docs/data_contract.md describes {', '.join(sorted(gone))}, which the database does not "
        "have"
    )
    assert {key: described[key] for key in there} == there


def test_the_contract_names_every_function_of_the_database(database: Database) -> None:
    section = text_of("docs/data_contract.md").partition("## Functions")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)\(", section)) == {
        row["name"] for row in read(database, FUNCTIONS)
    }


def test_the_schema_page_names_the_file_that_defines_each_function_and_view() -> None:
    defined: dict[str, str] = {}
    for file in sorted((ROOT / "sql").glob("[0-9]*.sql")):
        text = re.sub(r"--.*", "", file.read_text(encoding="utf-8"))
        text = text.replace("upsert_%1$s", "upsert_places")
        for name in re.findall(r"CREATE (?:OR REPLACE )?(?:FUNCTION|VIEW) (\w+)", text):
            defined[name] = file.name
        if defined.get("upsert_places") == file.name:
            defined["upsert_new_places"] = file.name
        for name in re.findall(r"DROP FUNCTION IF EXISTS (\w+);", text):
            if f"FUNCTION {name}(" not in text:
                defined.pop(name, None)
    described = {
        name: file
        for names, file in re.findall(
            r"^\| (`.*`) \| `(\d\w+\.sql)` \|", text_of("sql/README.md"), re.MULTILINE
        )
        for name in re.findall(r"`(\w+)(?:\(\))?`", names)
    }
    assert described == defined


def test_the_columns_of_the_batch_system_are_promised_for_good() -> None:
    old = {"batch_checkpoint": 13, "batch_execution_metadata": 12, "places": 12}
    lines = text_of("docs/data_contract.md").split("### `")
    promised = {
        section.partition("`")[0]: len(re.findall(r"\| old \|", section)) for section in lines[1:]
    }
    assert {table: count for table, count in promised.items() if count} == old


@pytest.fixture
def cursor(database_url: str) -> Iterator["psycopg2.extensions.cursor"]:
    """In a transaction that is undone."""
    connection = psycopg2.connect(database_url)
    with connection.cursor() as cursor:
        yield cursor
    connection.rollback()
    connection.close()


@pytest.mark.parametrize("page", [name for name in _NAMES if blocks(name, "sql")])
def test_every_query_of_a_page_runs(page: str, cursor: "psycopg2.extensions.cursor") -> None:
    for query in blocks(page, "sql"):
        try:
            cursor.execute(query)
        except psycopg2.Error as error:
            pytest.fail(f"{page}: {error}\n{query}")


def mohe_commands(name: str) -> Iterator[list[str]]:
    """The words after every `mohe` of the page, in a block or in the text."""
    shell = "\n".join(blocks(name, "sh", "bash")).replace("\\\n", " ")
    inline = _INLINE.findall(BLOCK.sub("", text_of(name)))
    for line in [*shell.splitlines(), *inline]:
        for found in re.finditer(r"(?:^|[\s;(&|]|bin/)mohe ([a-z](?:[^|;&)#>\\]|\\\|)*)", line):
            yield re.sub(r"[\[\]…\"']", " ", found[1]).split()


def complaint(words: list[str]) -> str:
    """Return the first unknown command or option. Positional arguments are not checked."""
    command: Any = typer.main.get_command(commands)
    rest = list(words)
    while hasattr(command, "get_command") and rest:
        alternatives = rest.pop(0).split("\\|")
        if unknown := [one for one in alternatives if command.get_command(None, one) is None]:
            return f"there is no command {unknown[0]}"
        command = command.get_command(None, alternatives[0])
    if command.context_settings.get("ignore_unknown_options"):
        return ""
    options = {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    unknown = [
        one
        for one in (word.partition("=")[0] for word in rest)
        if one.startswith("--") and one not in options
    ]
    return f"there is no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("page", _NAMES)
def test_every_command_and_option_of_a_page_exists(page: str) -> None:
    wrong = {
        f"mohe {' '.join(words)}: {reason}"
        for words in mohe_commands(page)
        if (reason := complaint(words))
    }
    assert not wrong


@pytest.fixture(scope="module")
def knowing() -> str:
    files = [path for pattern in _KNOWING for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    assert ROOT / "mohe_assets" / "settings.py" in files
    return "\n".join(path.read_text(encoding="utf-8") for path in files).upper()


@pytest.mark.parametrize("page", _NAMES)
def test_every_variable_of_a_page_is_known_to_the_code_or_the_deployment(
    page: str, knowing: str
) -> None:
    assert {
        name for name in _VARIABLE.findall(text_of(page)) if not re.search(rf"\b{name}\b", knowing)
    } == set()


@pytest.mark.parametrize("page", _NAMES)
def test_every_link_of_a_page_leads_to_a_file_or_a_heading(page: str) -> None:
    broken = []
    for link in _LINK.findall(BLOCK.sub("", text_of(page))):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(link)
    assert broken == []


def _anchors(file: Path) -> set[str]:
    """As GitHub makes them: lower case, punctuation dropped, spaces to hyphens."""
    headings = re.findall(
        r"^#+ (.+)$", BLOCK.sub("", file.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["docs/collection.md", "docs/collection.ko.md"])
def test_the_page_on_collecting_lists_every_check_of_the_data_and_no_other(page: str) -> None:
    described = [
        name[1]
        for row in table_rows(text_of(page))
        if (name := re.fullmatch(r"`([a-z_]+)`", row[0])) and len(row) == 2
    ]
    assert sorted(described) == sorted(
        spec.name for check in QUALITY_CHECKS for spec in check.check_specs
    )
    assert ("Thirteen checks" in text_of(page)) == (page == "docs/collection.md")
    assert ("검사가 열세 가지" in text_of(page)) == (page == "docs/collection.ko.md")
    assert len(described) == 13


def test_the_bounds_of_the_checks_are_those_of_the_code() -> None:
    bounds = {
        "places_near_their_region": [quality.NEAR_KM, quality.FAR_KM],
        "attribution_rate": [100 * quality.ATTRIBUTED_AT_LEAST],
        "no_duplicate_places": [quality.SAME_PLACE_METRES],
        "no_national_drop": [100 * quality.NATIONAL_DROP_TO],
        "few_items_rejected": [100 * quality.REJECTED_AT_MOST],
    }
    for page in ("docs/collection.md", "docs/collection.ko.md"):
        rows = {row[0].strip("`"): row[1] for row in table_rows(text_of(page)) if len(row) == 2}
        for check, values in bounds.items():
            assert differences(numbers_in(rows[check]), values) == [], (page, check)
    assert (quality.DROP_TO, quality.NEAR_P90S) == (0.5, 4), "half and four times, in words"


def test_the_two_pages_on_collecting_have_the_same_parts_and_commands() -> None:
    english, korean = "docs/collection.md", "docs/collection.ko.md"
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(korean)]
    commands = [re.sub(r"\s+#.*", "", "".join(blocks(page, "sh"))) for page in (english, korean)]
    assert commands[0] == commands[1]


def test_the_index_of_the_pages_names_every_one_of_them() -> None:
    folder = ROOT / "docs"
    named = {
        (folder / link.partition("#")[0]).resolve()
        for link in _LINK.findall(text_of("docs/README.md"))
    }
    assert {page for page in folder.rglob("*.md") if page != folder / "README.md"} - named == set()
