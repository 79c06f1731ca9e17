"""Applies one file of `sql/` inside a revision."""

from contextlib import closing

from alembic import op

from mohe_assets.packaged_files import packaged_file


def apply(name: str) -> None:
    """Executes `sql/<name>.sql` whole, on the driver's own cursor: a plain SQL file may hold % and
    : that are no parameters.
    """
    statements = (packaged_file("sql") / f"{name}.sql").read_text(encoding="utf-8")
    with closing(op.get_bind().connection.cursor()) as cursor:
        cursor.execute(statements)
