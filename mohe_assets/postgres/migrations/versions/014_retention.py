"""Applies sql/014_retention.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "014"
down_revision = "013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("014_retention")
