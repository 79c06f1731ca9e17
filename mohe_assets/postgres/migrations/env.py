"""Alembic's entry point: run the revisions in the transaction of the given connection."""

from alembic import context

from mohe_assets.postgres.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
