"""Apply sql/004_api_budget.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("004_api_budget")
