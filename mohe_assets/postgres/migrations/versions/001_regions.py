"""Apply sql/001_regions.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("001_regions")
