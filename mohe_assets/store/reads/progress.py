"""The number of searches that make a region complete, for the views of sql/007."""

from collections.abc import Sequence

from sqlalchemy import text

from mohe_assets.domain.search_plan import Search, plan_digest
from mohe_assets.store.database import Database, Scope

NOTE = """
INSERT INTO batch_plan AS known (batch_name, region_type, plan, searches)
    VALUES (:batch, :type, :plan, :searches)
ON CONFLICT (batch_name, region_type) DO UPDATE SET plan = excluded.plan,
   searches = excluded.searches, updated_at = now()
 WHERE known.plan <> excluded.plan
"""


def record_plan(database: Database, scope: Scope, plan: Sequence[Search]) -> None:
    """Record the plan; all regions have as many searches as `plan`."""
    values = {
        **scope.values,
        "plan": plan_digest(plan),
        "searches": len(plan),
    }
    database.transaction(lambda connection: connection.execute(text(NOTE), values))
