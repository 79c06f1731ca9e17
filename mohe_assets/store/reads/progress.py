"""What the views of sql/007 cannot know by themselves: how many searches make a region complete."""

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
    """`plan` is that of any region: all have as many searches."""
    values = {
        **scope.values,
        "plan": plan_digest(plan),
        "searches": len(plan),
    }
    database.transaction(lambda connection: connection.execute(text(NOTE), values))
