"""Apply sql/002_checkpoints.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "002"
down_revision = "001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("002_checkpoints")
