"""Apply sql/008_every_search.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "008"
down_revision = "007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("008_every_search")
