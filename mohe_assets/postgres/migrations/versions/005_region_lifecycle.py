"""Apply sql/005_region_lifecycle.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "005"
down_revision = "004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("005_region_lifecycle")
