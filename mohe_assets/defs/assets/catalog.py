"""Published assets: the nationwide files of places, and the report on their collection."""

import datetime as dt

import dagster as dg

from mohe_assets.defs.resources import MoheResource
from mohe_assets.defs.runtime import column_schemas as tables
from mohe_assets.defs.runtime.names import OWNER, PLACES
from mohe_assets.publishing.catalog import Catalog, build_catalog
from mohe_assets.publishing.report import PICTURE, REPORT, Report, build_report
from mohe_assets.store.checkpoints import Status


@dg.asset(
    group_name="catalog",
    kinds={"parquet", "csv", "python"},
    owners=[OWNER],
    code_version="1",
    metadata={
        "dagster/column_schema": tables.PLACE_CATALOG,
        "terms_of_use": dg.MetadataValue.text(
            "Passing results on is restricted by Naver's terms, see README.md."
        ),
    },
    deps=[PLACES],
)
def place_catalog(mohe: MoheResource) -> dg.MaterializeResult[None]:
    """All places of the country in one Parquet, one CSV and one GeoJSON file; docs/place_catalog.md
    describes them.

    Written to MOHE_CATALOG_DIR if the places have changed.
    """
    with mohe.open() as app:
        catalog = build_catalog(
            app.database, app.settings.catalog_folder, now=dt.datetime.now(dt.UTC)
        )
    return dg.MaterializeResult(metadata=_catalog_metadata(catalog))


def _catalog_metadata(catalog: Catalog) -> dict[str, dg.MetadataValue]:
    return {
        "dagster/row_count": dg.MetadataValue.int(catalog.places),
        "rebuilt": dg.MetadataValue.bool(catalog.rebuilt),
        "why": dg.MetadataValue.text(
            "the places have changed" if catalog.rebuilt else "unchanged: the files are up to date"
        ),
        "built_at": dg.MetadataValue.timestamp(catalog.built_at),
        **{name: dg.MetadataValue.path(catalog.folder / name) for name in catalog.file_bytes},
        **{
            f"{name} bytes": dg.MetadataValue.int(size) for name, size in catalog.file_bytes.items()
        },
    }


@dg.asset(
    group_name="catalog",
    kinds={"markdown", "python"},
    owners=[OWNER],
    code_version="1",
    deps=[PLACES],
)
def collection_report(mohe: MoheResource) -> dg.MaterializeResult[None]:
    """Progress of the collection: a map by region, places and calls over time, provinces, failed
    regions with their reasons, the use of the API's quota, and the expected end.

    Shown on this page, and written beside the catalog as report.md and report.png.
    """
    with mohe.open() as app:
        report = build_report(app, now=dt.datetime.now(dt.UTC))
    return dg.MaterializeResult(metadata=_report_metadata(report))


def _report_metadata(report: Report) -> dict[str, dg.MetadataValue]:
    snapshot = report.snapshot
    return {
        "report": dg.MetadataValue.md(report.markdown),
        "regions": dg.MetadataValue.int(len(snapshot.regions)),
        "completed": dg.MetadataValue.int(snapshot.count(Status.COMPLETED)),
        "failed": dg.MetadataValue.int(len(snapshot.failed)),
        "places": dg.MetadataValue.int(snapshot.places),
        "calls": dg.MetadataValue.int(snapshot.calls),
        "calls_left": dg.MetadataValue.int(snapshot.left.base_plan.calls),
        REPORT: dg.MetadataValue.path(report.folder / REPORT),
        **({PICTURE: dg.MetadataValue.path(report.folder / PICTURE)} if report.picture else {}),
    }
