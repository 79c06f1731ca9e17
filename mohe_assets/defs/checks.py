"""Asset checks. Their queries and limits are in store/reads/quality.py."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg

from mohe_assets.defs.partitions import sigungu_partitions
from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime.names import PLACES, SIGUNGU_REGIONS
from mohe_assets.defs.runtime.reconciliation import disagreements, regions_of, shown
from mohe_assets.domain import columns as tables
from mohe_assets.domain.schema_validation import rule_violations
from mohe_assets.store.reads.quality import (
    ATTRIBUTED_AT_LEAST,
    DROP_TO,
    NATIONAL_DROP_TO,
    NEAR_KM,
    NEAR_P90S,
    REJECTED_AT_MOST,
    SAME_PLACE_METRES,
    SHOWN_AT_MOST,
    Quality,
    Violations,
)

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOutcome:
    """The result of a check. Without `passed`, it passes if there are no violations."""

    violations: Violations
    severity: dg.AssetCheckSeverity = WARN
    passed: bool | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def result(self) -> dg.AssetCheckResult:
        """Return Dagster's result: the number of violations and the first SHOWN_AT_MOST rows."""
        found = self.violations
        shown = (
            f", the first {len(found.shown)} are shown"
            if len(found.shown) == SHOWN_AT_MOST < found.count
            else ""
        )
        return dg.AssetCheckResult(
            passed=not found.count if self.passed is None else self.passed,
            severity=self.severity,
            description=f"{found.count} offending{shown}",
            metadata={
                "offending": found.count,
                "rows": dg.MetadataValue.json(found.shown),
                **self.metadata,
            },
        )


def _check(
    asset: dg.AssetKey, name: str, description: str, judge: Callable[[Quality], CheckOutcome]
) -> dg.AssetChecksDefinition:
    # `can_subset` allows a check without a result. Dagster runs the checks of an asset with every
    # run of a backfill, but these cover the whole country and run on request only.
    spec = dg.AssetCheckSpec(name, asset=asset, description=description)

    @dg.multi_asset_check(name=f"check_{name}", specs=[spec], can_subset=True)
    def check(
        context: dg.AssetCheckExecutionContext, mohe: MoheResource
    ) -> Iterator[dg.AssetCheckResult]:
        if asset in (context.run.asset_selection or ()):
            return
        with mohe.open() as app:
            yield judge(Quality(checkpoints=app.checkpoints)).result()

    return check


def _attribution(quality: Quality) -> CheckOutcome:
    places, lost = quality.places(), quality.without_a_region()
    share = 1 - lost.count / places if places else 1.0
    return CheckOutcome(
        violations=lost,
        passed=share >= ATTRIBUTED_AT_LEAST,
        metadata={"places": places, "attributed_share": round(share, 4)},
    )


def _failures(quality: Quality) -> CheckOutcome:
    given_up = quality.given_up()
    return CheckOutcome(
        violations=quality.failed(),
        severity=ERROR if given_up else WARN,
        metadata={"given_up": given_up},
    )


def _schema_violations(quality: Quality) -> CheckOutcome:
    found = rule_violations(
        tables.PLACES, quality.place_rows(), in_order=("first_seen_at", "last_seen_at")
    )
    shown = [asdict(violation) for violation in found[:SHOWN_AT_MOST]]
    return CheckOutcome(
        violations=Violations(count=sum(violation.count for violation in found), shown=shown)
    )


def _rejected(quality: Quality) -> CheckOutcome:
    shares = quality.rejected()
    shown = [
        {"reason": reason, "share": share}
        for reason, share in shares.items()
        if share > REJECTED_AT_MOST
    ]
    metadata = {f"rejected_{reason}": share for reason, share in sorted(shares.items())}
    return CheckOutcome(violations=Violations(count=len(shown), shown=shown), metadata=metadata)


def _national_drop(quality: Quality) -> CheckOutcome:
    found = quality.national_drop()
    dropped = found["places_now"] < NATIONAL_DROP_TO * found["places_before"]
    return CheckOutcome(
        violations=Violations(count=int(dropped), shown=[dict(found)] if dropped else []),
        severity=ERROR,
        metadata=found,
    )


places_fit_their_schema = _check(
    PLACES,
    "places_fit_their_schema",
    "Every value of every place follows the rules of its column. Each violated rule is shown with "
    "its count and a few values.",
    _schema_violations,
)
coordinates_inside_korea = _check(
    PLACES,
    "coordinates_inside_korea",
    "Every place's point is in Korea.",
    lambda quality: CheckOutcome(violations=quality.outside_korea(), severity=ERROR),
)
places_near_their_region = _check(
    PLACES,
    "places_near_their_region",
    f"No place is more than {NEAR_KM:g} km from its region's point and also more than "
    f"{NEAR_P90S:g} times as far as nine in ten of the region's places.",
    lambda quality: CheckOutcome(violations=quality.far_from_their_region()),
)
attribution_rate = _check(
    PLACES,
    "attribution_rate",
    f"At least {ATTRIBUTED_AT_LEAST:.0%} of all places have an address in a known region.",
    _attribution,
)
no_duplicate_places = _check(
    PLACES,
    "no_duplicate_places",
    f"No two places have one title at one address, or within {SAME_PLACE_METRES:g} m.",
    lambda quality: CheckOutcome(violations=quality.duplicates()),
)
no_sudden_drop = _check(
    PLACES,
    "no_sudden_drop",
    f"No region's new round found less than {DROP_TO:.0%} of the places that the same searches "
    "found in the previous round.",
    lambda quality: CheckOutcome(violations=quality.drops()),
)
regions_have_places = _check(
    PLACES,
    "regions_have_places",
    "No region is completed without a place.",
    lambda quality: CheckOutcome(violations=quality.without_a_place()),
)
no_search_skipped = _check(
    PLACES,
    "no_search_skipped",
    "No search is skipped permanently: refused by the API, or failed MOHE_MAX_ATTEMPTS times while "
    "others were answered.",
    lambda quality: CheckOutcome(violations=quality.skipped_searches()),
)
few_items_rejected = _check(
    PLACES,
    "few_items_rejected",
    f"For no single reason are more than {REJECTED_AT_MOST:.0%} of all items rejected.",
    _rejected,
)
no_national_drop = _check(
    PLACES,
    "no_national_drop",
    f"The regions of a new round have at least {NATIONAL_DROP_TO:.0%} of the places of their "
    "previous round.",
    _national_drop,
)
nothing_left_failed = _check(
    PLACES,
    "nothing_left_failed",
    "No region is FAILED. It is an error if a region is given up: only `mohe retry` tries that "
    "again.",
    _failures,
)
collection_is_complete = _check(
    PLACES,
    "collection_is_complete",
    "Every active region is COMPLETED or FAILED, and every region has a checkpoint. Full searches, "
    "which may hide more places, are counted.",
    lambda quality: CheckOutcome(violations=quality.incomplete(), metadata=quality.completeness()),
)


@dg.asset_check(
    asset=SIGUNGU_REGIONS,
    description=(
        "Active leaf regions, their checkpoints, the partition keys and the last list read agree."
    ),
)
def regions_match_the_list(
    context: dg.AssetCheckExecutionContext, mohe: MoheResource
) -> dg.AssetCheckResult:
    """Compare the tables and Dagster's partition keys, which must hold the same regions."""
    with mohe.open() as app:
        quality = Quality(checkpoints=app.checkpoints)
        violations, listed = quality.not_as_listed(), quality.listed()
        wanted = set(app.regions.partition_keys().values())
    keys = set(context.instance.get_dynamic_partitions(str(sigungu_partitions.name)))
    missing, surplus = sorted(wanted - keys), sorted(keys - wanted)
    partitions = {"partition_keys": len(keys), "without_a_partition": missing[:SHOWN_AT_MOST],
                  "partitions_of_no_region": surplus[:SHOWN_AT_MOST]}  # fmt: skip
    found = Violations(count=violations.count + len(missing) + len(surplus), shown=violations.shown)
    return CheckOutcome(
        violations=found, severity=ERROR, metadata={**listed, **partitions}
    ).result()


@dg.asset_check(
    asset=PLACES,
    description=(
        "Checkpoints and partitions agree: COMPLETED is green, FAILED red, PENDING neither. "
        "The sensor repairs differences once a minute, except for a green region that was "
        "set to PENDING by hand: it is collected again."
    ),
)
def checkpoints_match_partitions(
    context: dg.AssetCheckExecutionContext, mohe: MoheResource
) -> dg.AssetCheckResult:
    """Compare all regions in both directions, except those that a run is collecting."""
    with mohe.open() as app:
        found = disagreements(regions_of(app), shown(context.instance))
    first = {key: found[key] for key in sorted(found)[:SHOWN_AT_MOST]}
    return dg.AssetCheckResult(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(found)} regions differ" if found else "all regions agree",
        metadata={"differing": len(found), "regions": dg.MetadataValue.json(first)},
    )


# They look at the data over the whole country.
QUALITY_CHECKS = (
    regions_have_places,
    no_search_skipped,
    few_items_rejected,
    no_national_drop,
    places_fit_their_schema,
    coordinates_inside_korea,
    places_near_their_region,
    attribution_rate,
    no_duplicate_places,
    no_sudden_drop,
    nothing_left_failed,
    collection_is_complete,
    regions_match_the_list,
)
CHECKS = (checkpoints_match_partitions, *QUALITY_CHECKS)
