"""Apply sql/006_refinement.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "006"
down_revision = "005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("006_refinement")
