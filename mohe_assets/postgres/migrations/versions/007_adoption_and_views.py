"""Apply sql/007_adoption_and_views.sql, and give our keys to places of the batch system."""

from alembic import op

from mohe_assets.postgres.legacy_places import adopt_places
from mohe_assets.postgres.migrations.plain_sql import apply

revision = "007"
down_revision = "006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("007_adoption_and_views")
    adopt_places(op.get_bind())
