"""Apply sql/011_region_list.sql, and add the public register's successions to the inferred ones."""

from alembic import op

from mohe_assets.domain.regions import REGION_TYPE_SIGUNGU
from mohe_assets.postgres.migrations.plain_sql import apply
from mohe_assets.store.region_lifecycle import seed_successions

revision = "011"
down_revision = "010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply("011_region_list")
    seed_successions(op.get_bind(), REGION_TYPE_SIGUNGU)
