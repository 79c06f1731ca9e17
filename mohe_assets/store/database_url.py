"""PostgreSQL URLs as people write them, and the one form used inside.

The one form is `postgresql://user:password@host:port/database?…`, which psql, SQLAlchemy and
dagster-postgres read alike. A unix socket is `?host=/folder`, several hosts are
`?host=a,b&port=1,2`. Nothing is opened here, and a message repeats no more of a URL than a
parameter's name: a password may be anywhere in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn

FORM = "has to be postgresql://user:password@host:port/database"
DEFAULT_PORT = "5432"

_SCHEME = re.compile(r"postgres(?:ql)?://")
# The second form reads a password with characters that should have been written as %XX, such as @ /
# ? and #.
_PARTS = tuple(
    re.compile(
        rf"(?:(?P<user>[^:@/?#]*)(?::(?P<password>{password}))?@{otherwise})(?P<hosts>[^@/?#]*)"
        r"/(?P<database>[^/?#@]*)(?:\?(?P<query>[^#]*))?"
    )
    for password, otherwise in (("[^@/?#]*", "|(?!.*@)"), (".*", "|"))
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(?P<port>\d*))?")
_NAME = re.compile(r"[A-Za-z_]{1,40}")
_TRUE, _FALSE = ("true", "1", "on", "yes"), ("false", "0", "off", "no")
# Parameters of other clients, and how libpq spells them.
_SPELT = {
    "schema": "options=-c%20search_path%3DSCHEMA",
    "currentSchema": "options=-c%20search_path%3DSCHEMA",
    "connectTimeout": "connect_timeout",
    "loginTimeout": "connect_timeout",
    "ApplicationName": "application_name",
    "targetServerType": "target_session_attrs",
}
# Parameters that name a file, and the word that one of them takes instead.
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir", "passfile")
_SYSTEM = "system"
_OPTION = re.compile(r"(?:-c\s*|--)(?P<name>[\w.-]+)=(?P<value>(?:\\.|[^\s\\])*)\s*")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseUrl:
    """The decoded parts of a URL; `str()` is the one form.

    There are as many ports as hosts; an empty one is the client's default.
    """

    user: str
    password: str | None
    hosts: tuple[str, ...]
    ports: tuple[str, ...]
    database: str
    query: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise ValueError with the end of a sentence that begins with the setting's name."""
        if text.startswith("jdbc:"):
            raise ValueError(
                "is a JDBC URL; write postgresql://user:password@host:port/database, without jdbc:"
            )
        scheme = _SCHEME.match(text)
        parts = scheme and next(
            (found for one in _PARTS if (found := one.fullmatch(text, scheme.end()))), None
        )
        if not parts:
            raise ValueError(FORM)
        query = _query(parts["query"] or "")
        hosts, ports = _hosts(parts["hosts"], query)
        _refuse_unknown(query)
        password = parts["password"]
        url = cls(
            user=query.pop("user", unquote(parts["user"] or "")),
            password=query.pop("password", None if password is None else unquote(password)),
            hosts=hosts,
            ports=ports,
            database=query.pop("dbname", unquote(parts["database"])),
            query=query,
        )
        if not url.database:
            raise ValueError(FORM)
        return url

    @property
    def is_local(self) -> bool:
        """Whether it names a unix socket, which cannot lose its peer without notice."""
        return all(not host or host.startswith(("/", "@")) for host in self.hosts)

    @property
    def session_settings(self) -> dict[str, str]:
        """The settings of `?options=`, by name."""
        found = _OPTION.finditer(self.query.get("options", ""))
        return {
            one["name"].replace("-", "_"): re.sub(r"\\(.)", r"\1", one["value"]) for one in found
        }

    def sibling(self, database: str) -> Self:
        """Another database of the same server. Our search_path is not that one's: its tables are in
        its own schema.
        """
        query = dict(self.query)
        if options := query.pop("options", ""):
            kept = _OPTION.sub(
                lambda one: "" if one["name"] == "search_path" else one[0], options
            ).strip()
            query |= {"options": kept} if kept else {}
        return replace(self, database=database, query=query)

    def with_defaults(self, parameters: Mapping[str, object]) -> Self:
        """The same with these parameters where the URL has none of that name."""
        return replace(
            self, query={**{name: str(value) for name, value in parameters.items()}, **self.query}
        )

    def with_absolute_paths(self) -> Self:
        """The same for processes that run in another folder."""
        paths = {
            name: str(Path(value).expanduser().absolute())
            for name, value in self.query.items()
            if name in _FILES and value and value != _SYSTEM
        }
        return replace(self, query={**self.query, **paths})

    def without_secrets(self, mask: str) -> Self:
        """The same for a person, with `mask` in place of passwords."""
        secret = {name: mask for name in self.query if "password" in name}
        password = None if self.password is None else mask
        return replace(self, password=password, query={**self.query, **secret})

    def __str__(self) -> str:
        query, where = dict(self.query), ""
        if len(self.hosts) > 1 or self.hosts[0].startswith(("/", "@")):
            ports = {"port": ",".join(self.ports)} if any(self.ports) else {}
            query = {"host": ",".join(self.hosts), **ports, **query}
        else:
            (host,), (port,) = self.hosts, self.ports
            where = (f"[{host}]" if ":" in host else quote(host, safe="")) + (
                f":{port}" if port else ""
            )
        person = quote(self.user, safe="")
        if self.password is not None:
            person += f":{quote(self.password, safe='')}"
        if person or not where:
            person += "@"
        text = "&".join(f"{name}={quote(value, safe='/,')}" for name, value in query.items())
        # SQLAlchemy decodes no database's name, libpq does: as little as possible is encoded.
        database = re.sub(r"[%?#/@]", lambda one: quote(one[0], safe=""), self.database)
        return f"postgresql://{person}{where}/{database}{'?' if text else ''}{text}"


def canonical(text: str) -> str:
    """The URL in the one form used inside, for processes in any folder.

    Raise ValueError as `DatabaseUrl.parse`.
    """
    return str(DatabaseUrl.parse(text).with_absolute_paths())


def _query(text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for pair in filter(None, text.split("&")):
        name, value = (unquote(part) for part in pair.partition("=")[::2])
        # ?host=a&host=b is SQLAlchemy's way to write several hosts.
        query[name] = (
            f"{query[name]},{value}" if name in ("host", "port") and name in query else value
        )
    if "options" in query:
        query["options"] = query["options"].replace("+", " ")  # a space, as forms encode it
    if (ssl := query.pop("ssl", None)) is not None:
        if ssl.lower() not in _TRUE + _FALSE:
            raise ValueError(
                "has the parameter ssl, which has to be true or false; or write sslmode"
            )
        query.setdefault("sslmode", "require" if ssl.lower() in _TRUE else "disable")
    return query


def _refuse_unknown(query: dict[str, str]) -> None:
    for name in query:
        if not _NAME.fullmatch(name):
            raise ValueError(FORM)
        try:
            make_dsn(**{name: "1"})  # libpq knows its parameters; a list of ours would grow old
        except ProgrammingError:
            instead = f"write {_SPELT[name]} instead" if name in _SPELT else "remove it"
            raise ValueError(
                f"has the parameter {name}, which PostgreSQL's client does not know; {instead}"
            ) from None


def _hosts(authority: str, query: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hosts and ports from before the database or from the query, which loses them."""
    named = query.pop("host", "")
    if named and authority:
        raise ValueError(
            "names hosts before the database and in ?host= too; write them in one place"
        )
    hosts, ports = list[str](), list[str]()
    for one in (named or authority).split(","):
        if one.startswith("/") or (one.count(":") > 1 and not one.startswith("[")):
            # A socket's folder; an IPv6 address without its brackets.
            host, port = one, ""
        elif found := _HOST.fullmatch(one):
            host, port = unquote(found["name"]).strip("[]"), found["port"] or ""
        else:
            raise ValueError(FORM)
        hosts.append(host)
        ports.append(port)
    if given := query.pop("port", ""):
        ports = given.split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts):
        raise ValueError(
            f"names {len(hosts)} hosts and {len(ports)} ports; write one port, or one for each host"
        )
    if len(hosts) > 1:
        ports = [port or DEFAULT_PORT for port in ports]
    if any(port and not (port.isdecimal() and 0 < int(port) < 65536) for port in ports):  # noqa: PLR2004 - 16 bits
        raise ValueError(FORM)
    return tuple(hosts), tuple(ports)
