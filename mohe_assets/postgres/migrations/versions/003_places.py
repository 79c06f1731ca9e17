"""Apply sql/003_places.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "003"
down_revision = "002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("003_places")
