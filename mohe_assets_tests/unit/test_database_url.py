"""URLs as people write them: read alike by libpq (psql, pg_dump) and by SQLAlchemy (our engine,
dagster-postgres).
"""

import pytest
from psycopg2.extensions import parse_dsn
from sqlalchemy.dialects.postgresql.psycopg2 import dialect
from sqlalchemy.engine import make_url

from mohe_assets.store.database_url import FORM, DatabaseUrl, canonical

SECRET = "recognisable-secret"


def as_libpq_reads(url: str) -> dict[str, str]:
    return parse_dsn(url)


def as_sqlalchemy_connects(url: str) -> dict[str, str]:
    given = dialect().create_connect_args(make_url(url))[1]  # type: ignore[no-untyped-call]
    return {
        ("dbname" if name == "database" else name): str(value)
        for name, value in given.items()
        if value != ""
    }


@pytest.mark.parametrize(
    ("written", "inside"),
    [
        ("postgres://u:p@h/db", "postgresql://u:p@h/db"),
        ("postgresql://u@h/db?ssl=true", "postgresql://u@h/db?sslmode=require"),
        ("postgresql://u@h/db?ssl=false", "postgresql://u@h/db?sslmode=disable"),
        (
            "postgresql://u@h/db?ssl=true&sslmode=verify-full",
            "postgresql://u@h/db?sslmode=verify-full",
        ),
        (
            "postgresql://u@h1:1,h2:2/db?target_session_attrs=read-write",
            "postgresql://u@/db?host=h1,h2&port=1,2&target_session_attrs=read-write",
        ),
        ("postgresql://u@h1,h2/db", "postgresql://u@/db?host=h1,h2&port=5432,5432"),
        ("postgresql://u@h1,h2/db?port=6432", "postgresql://u@/db?host=h1,h2&port=6432,6432"),
        ("postgresql://u@/db?host=h1,h2&port=1,2", "postgresql://u@/db?host=h1,h2&port=1,2"),
        ("postgresql://u@/db?host=h1:1&host=h2:2", "postgresql://u@/db?host=h1,h2&port=1,2"),
        ("postgresql://u@/db?host=10.0.0.1&port=5433", "postgresql://u@10.0.0.1:5433/db"),
        ("postgresql:///?host=h&dbname=db&user=u&password=p%26q", "postgresql://u:p%26q@h/db"),
        ("postgresql://u@/db?host=%2Frun%2Fpostgresql", "postgresql://u@/db?host=/run/postgresql"),
        ("postgresql://u@[::1]:5433/db", "postgresql://u@[::1]:5433/db"),
        (
            "postgresql://u@h/db?options=-c search_path=app",
            "postgresql://u@h/db?options=-c%20search_path%3Dapp",
        ),
        (
            "postgresql://u@h/db?options=-c+search_path%3Dapp",
            "postgresql://u@h/db?options=-c%20search_path%3Dapp",
        ),
        ("postgresql://u@h/장소", "postgresql://u@h/장소"),
    ],
)
def test_a_url_has_one_form_that_libpq_and_sqlalchemy_read_alike(written: str, inside: str) -> None:
    assert canonical(written) == inside
    assert canonical(inside) == inside
    assert as_sqlalchemy_connects(inside) == as_libpq_reads(inside)


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p%40ss%2Fw%3Fo%23r%25d", "p@ss/w?o#r%d"),
        ("p@ss", "p@ss"),
        ("p/ss?w=1", "p/ss?w=1"),
        ("a#b:c", "a#b:c"),
        ("100%", "100%"),
        ("plus+plus", "plus+plus"),
        ("비밀%20번호", "비밀 번호"),
        ("", ""),
    ],
)
def test_a_password_may_hold_any_character(written: str, password: str) -> None:
    url = DatabaseUrl.parse(f"postgresql://someone:{written}@host:5432/mohe?sslmode=require")
    assert (url.user, url.password, url.hosts, url.database) == (
        "someone",
        password,
        ("host",),
        "mohe",
    )
    assert as_libpq_reads(str(url)).get("password", "") == password
    assert as_sqlalchemy_connects(str(url)).get("password", "") == password


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", FORM),
        (f"mysql://someone:{SECRET}@host/mohe", FORM),
        (f"postgresql+psycopg2://someone:{SECRET}@host/mohe", FORM),
        (f"postgresql://someone:{SECRET}@host", FORM),
        (f"postgresql://someone:{SECRET}@host/", FORM),
        (f"postgresql://someone:{SECRET}@host:port/mohe", FORM),
        (f"postgresql://someone:{SECRET}@host:99999/mohe", FORM),
        (f"postgresql://someone:{SECRET}@[host/mohe", FORM),
        (f"postgresql://someone:x/y?{SECRET}", FORM),
        (
            f"jdbc:postgresql://host/mohe?user=u&password={SECRET}",
            "is a JDBC URL; write postgresql://user:password@host:port/database, without jdbc:",
        ),
        (
            f"postgresql://someone:{SECRET}@host/mohe?no_such_option={SECRET}",
            "has the parameter no_such_option, which PostgreSQL's client does not know; remove it",
        ),
        (
            "postgresql://host/mohe?currentSchema=app",
            (
                "has the parameter currentSchema, which PostgreSQL's client does not know; "
                "write options=-c%20search_path%3DSCHEMA instead"
            ),
        ),
        (
            "postgresql://host/mohe?ssl=prefer",
            "has the parameter ssl, which has to be true or false; or write sslmode",
        ),
        (
            "postgresql://h1,h2/mohe?port=1,2,3",
            "names 2 hosts and 3 ports; write one port, or one for each host",
        ),
        (
            "postgresql://h1/mohe?host=h2",
            "names hosts before the database and in ?host= too; write them in one place",
        ),
    ],
)
def test_a_url_that_cannot_be_read_is_refused_with_what_to_write(url: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole reason is compared
        canonical(url)
    assert str(caught.value) == reason


def test_the_sibling_for_dagster_has_everything_but_the_search_path() -> None:
    url = DatabaseUrl.parse(
        "postgresql://u:p@h1:1,h2:2/db?sslmode=require&options=-c search_path=a,b -c "
        "statement_timeout=5s --search_path=c"
    )
    assert str(url.sibling("dagster")) == (
        "postgresql://u:p@/dagster?host=h1,h2&port=1,2&sslmode=require&"
        "options=-c%20statement_timeout%3D5s"
    )
    assert "options" not in str(
        DatabaseUrl.parse("postgresql://h/db?options=-csearch_path=app").sibling("dagster")
    )


def test_the_settings_of_the_options_are_read_as_the_server_reads_them() -> None:
    options = r"-c search_path=app,\ public --statement-timeout=5s -cwork_mem=64MB"
    assert DatabaseUrl.parse(f"postgresql://h/db?options={options}").session_settings == {
        "search_path": "app, public",
        "statement_timeout": "5s",
        "work_mem": "64MB",
    }
