"""Apply sql/009_searches_together.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "009"
down_revision = "008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("009_searches_together")
