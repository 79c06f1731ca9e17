"""Apply sql/013_data_origin.sql."""

from mohe_assets.postgres.migrations.plain_sql import apply

revision = "013"
down_revision = "012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("013_data_origin")
