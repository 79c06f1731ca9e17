"""Events and metadata that the Dagster UI shows of regions and region lists."""

from collections.abc import Sequence
from typing import Protocol

import dagster as dg

from mohe_assets.defs.runtime.names import places_key
from mohe_assets.domain.succession import Succession
from mohe_assets.region_sync import RegionSync
from mohe_assets.store.checkpoints import Completion
from mohe_assets.text.cleaning import markdown

SHOWN_AT_MOST = 50


def materialization(completion: Completion) -> dg.AssetMaterialization:
    """Return the event of a completed region."""
    return dg.AssetMaterialization(
        asset_key=places_key(),
        partition=completion.partition_key,
        description=f"{markdown(completion.region_name)}: {completion.places} places",
        metadata={
            "region": completion.region_name,
            "dagster/partition_row_count": completion.places,
            "places": completion.places,
            "places_new": completion.places_new,
            "places_known_before": completion.places - completion.places_new,
            "strays": completion.out_of_region,
            "items_set_aside": completion.set_aside,
            "searches": completion.searches,
            "searches_beyond_the_base_plan": completion.refinements,
            "searches_full": completion.saturated,
            "calls": completion.calls,
            "duration_seconds": completion.seconds,
            "round": completion.round,
            "attempt": completion.attempt,
            **_run_link("collected_by_run", completion.run_id),
        },
    )


class FailedRegion(Protocol):
    """A region and the attempt that failed."""

    @property
    def region_name(self) -> str: ...
    @property
    def partition_key(self) -> str: ...
    @property
    def round(self) -> int: ...
    @property
    def attempt(self) -> int: ...


def failure_observation(region: FailedRegion, reason: str, run_id: str) -> dg.AssetObservation:
    """Return the event that shows the reason on a failed partition's page.

    Dagster itself only names the run there.
    """
    return dg.AssetObservation(
        asset_key=places_key(),
        partition=region.partition_key,
        description=f"{markdown(region.region_name)}: {markdown(reason)}",
        metadata={
            "region": region.region_name,
            "error": reason,
            "round": region.round,
            "attempt": region.attempt,
            **_run_link("failed_in_run", run_id),
        },
    )


def _run_link(label: str, run_id: str) -> dict[str, dg.MetadataValue]:
    """Return a link to the run and the query for its row; a row edited by hand has no run."""
    if not run_id:
        return {}
    query = f"SELECT * FROM batch_execution_metadata WHERE execution_id = '{run_id}';"
    return {
        label: dg.MetadataValue.dagster_run(run_id),
        "execution_row": dg.MetadataValue.text(query),
    }


def region_sync_metadata(sync: RegionSync) -> dict[str, dg.MetadataValue]:
    """Return the result of a refresh for the asset's page."""
    listed, changes = sync.listed, sync.changes
    found: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(len(listed.regions)),
        "source": dg.MetadataValue.text(listed.source),
        "as_of": dg.MetadataValue.text(listed.as_of.isoformat()),
        "leaf_regions": dg.MetadataValue.int(len(listed.leaves)),
        "sigungu_rows": dg.MetadataValue.int(len(listed.regions)),
        "legal_dongs": dg.MetadataValue.int(len(listed.dongs)),
        "rows_read": dg.MetadataValue.int(listed.rows),
        "calls": dg.MetadataValue.int(sync.calls),
        "added": dg.MetadataValue.int(len(changes.added)),
        "abolished": dg.MetadataValue.int(len(changes.abolished)),
        "renamed": dg.MetadataValue.int(len(changes.renamed)),
        "checkpoints_seeded": dg.MetadataValue.int(sync.seeded),
    }
    found |= {
        "successions": dg.MetadataValue.int(len(sync.successions)),
        "places_moved": dg.MetadataValue.int(sync.reassigned.moved),
        "places_without_region": dg.MetadataValue.int(sync.reassigned.unassigned),
        "leases_ended": dg.MetadataValue.int(sync.revoked),
    }
    if sync.successions:
        found["what_became_of_them"] = dg.MetadataValue.md(succession_table(sync.successions))
    if sync.warning:
        found["warning"] = dg.MetadataValue.text(sync.warning)
    return found


def succession_table(successions: Sequence[Succession]) -> str:
    """Return old and new regions as a Markdown table of at most SHOWN_AT_MOST rows."""
    lines = ["| old | new | common dong names | of the old | of the new |", "|---|---|---|---|---|"]
    lines += [
        f"| {markdown(f'{one.old_code} {one.old_name}')} "
        f"| {markdown(f'{one.new_code} {one.new_name}')} | {one.shared_dongs} "
        f"| {one.share_of_old:.0%} | {one.share_of_new:.0%} |"
        for one in successions[:SHOWN_AT_MOST]
    ]
    if len(successions) > SHOWN_AT_MOST:
        lines.append(
            f"| and {len(successions) - SHOWN_AT_MOST} more, see table region_succession | | | | |"
        )
    return "\n".join(lines)
