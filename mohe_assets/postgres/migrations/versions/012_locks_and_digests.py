"""Apply sql/012_locks_and_digests.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "012"
down_revision = "011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("012_locks_and_digests")
