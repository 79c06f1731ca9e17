"""The roles of sql/roles.sql: what they may do in a database, and their passwords."""

from contextlib import closing

from psycopg2 import sql
from psycopg2.extensions import encrypt_password
from sqlalchemy import Connection

from mohe_assets.packaged_files import packaged_file
from mohe_assets.store.database import Database

COLLECTOR = "mohe_collector"
READER = "mohe_reader"


def grant(database: Database) -> None:
    """Makes the roles if they are missing, and brings their rights in this database up to date."""
    statements = (packaged_file("sql") / "roles.sql").read_text(encoding="utf-8")

    def run(connection: Connection) -> None:
        # The driver's own cursor: a plain SQL file may hold % and : that are no parameters.
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(statements)

    database.transaction(run)


def set_password(database: Database, role: str, password: str) -> None:
    """Sends what PostgreSQL stores instead of the password itself, which would be in the server's
    log on a bad day.
    """

    def change(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        stored = encrypt_password(password, role, scope=driver, algorithm="scram-sha-256")
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(stored)
        )
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(statement)

    database.transaction(change)
