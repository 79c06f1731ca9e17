"""The roles of sql/roles.sql: their rights in a database, and their passwords."""

from contextlib import closing

from psycopg2 import sql
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection, text

from mohe_assets.packaged_files import packaged_file
from mohe_assets.store.database import Database

COLLECTOR = "mohe_collector"
READER = "mohe_reader"

_ROLES_EXIST = "SELECT bool_or(true) FROM pg_roles WHERE rolname = ANY(:roles)"
_RIGHTS = """
SELECT name, coalesce((SELECT string_agg(one, ' ' ORDER BY one) FROM unnest(rights) AS one), '')
       AS rights
  FROM (SELECT 'table ' || oid::regclass AS name, CAST(relacl AS text[]) AS rights FROM pg_class
         WHERE relnamespace = to_regnamespace('public') AND relacl IS NOT NULL
        UNION ALL
        SELECT 'column ' || attrelid::regclass || '.' || attname, CAST(attacl AS text[])
          FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
         WHERE attacl IS NOT NULL AND c.relnamespace = to_regnamespace('public')
        UNION ALL
        SELECT 'schema public', CAST(nspacl AS text[]) FROM pg_namespace WHERE nspname = 'public'
        UNION ALL
        SELECT 'database ' || datname, CAST(datacl AS text[]) FROM pg_database
         WHERE datname = current_database()
        UNION ALL
        SELECT 'tables made later',
               array_agg(CAST(defaclobjtype AS text) || ' ' || CAST(defaclacl AS text))
          FROM pg_default_acl
        UNION ALL
        SELECT 'role ' || rolname, array_append(rolconfig, CAST(rolconnlimit AS text)) FROM pg_roles
         WHERE rolname = ANY(:roles)) AS found
"""


def grant(database: Database) -> None:
    """Create missing roles and update the rights of all roles in this database."""

    def run(connection: Connection) -> None:
        # The driver's own cursor, because the file may contain % and : that are no parameters.
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(_statements())

    database.transaction(run)


def outdated(database: Database) -> list[str]:
    """Return the names of the objects whose rights sql/roles.sql would change in this database.

    Runs the file and rolls it back. Returns nothing if the roles do not exist.
    """

    def compare(connection: Connection) -> list[str]:
        if not connection.execute(text(_ROLES_EXIST), {"roles": [COLLECTOR, READER]}).scalar():
            return []
        before = _rights(connection)
        with (
            connection.begin_nested() as attempt,
            closing(connection.connection.cursor()) as cursor,
        ):
            cursor.execute(_statements())
            after = _rights(connection)
            attempt.rollback()
        return sorted(
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        )

    return database.transaction(compare)


def _rights(connection: Connection) -> dict[str, str]:
    rights = connection.execute(text(_RIGHTS), {"roles": [COLLECTOR, READER]})
    return {row.name: row.rights for row in rights}


def _statements() -> str:
    return (packaged_file("sql") / "roles.sql").read_text(encoding="utf-8")


def set_password(database: Database, role: str, password: str) -> None:
    """Set a role's password. Sends its SCRAM digest, because statements may be logged."""

    def change(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        stored = encrypt_password(password, role, scope=driver, algorithm="scram-sha-256")
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(stored)
        )
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(statement)

    database.transaction(change)
