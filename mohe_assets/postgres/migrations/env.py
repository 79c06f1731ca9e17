"""Alembic's entry point: runs the revisions on the connection it is given, inside that connection's
transaction.
"""

from alembic import context

from mohe_assets.postgres.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
