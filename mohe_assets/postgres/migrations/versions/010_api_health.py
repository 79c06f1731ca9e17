"""Apply sql/010_api_health.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "010"
down_revision = "009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("010_api_health")
