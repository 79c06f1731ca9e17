"""Apply a file of `sql/` inside a revision."""

from contextlib import closing

from alembic import op

from mohe_assets.packaged_files import packaged_file


def apply(name: str) -> None:
    """Execute `sql/<name>.sql` on the driver's cursor, because % and : are no parameters in it."""
    statements = (packaged_file("sql") / f"{name}.sql").read_text(encoding="utf-8")
    with closing(op.get_bind().connection.cursor()) as cursor:
        cursor.execute(statements)
