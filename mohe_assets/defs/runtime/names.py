"""The names under which Dagster keeps state: assets, jobs, and the prefix of asset keys."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import dagster as dg

OWNER = "team:mohe"

SIGUNGU_REGIONS = dg.AssetKey("sigungu_regions")
PLACES = dg.AssetKey("places")
PLACE_CATALOG = dg.AssetKey("place_catalog")
COLLECTION_REPORT = dg.AssetKey("collection_report")

REFRESH_REGIONS = "refresh_regions"
INGEST_PLACES = "ingest_places"
PLACE_INGESTION_BATCH = "place_ingestion_batch"
REFINE_PLACES = "refine_places"
PUBLISH_CATALOG = "publish_catalog"
NEW_ROUND = "new_round"

_key_prefix: ContextVar[tuple[str, ...]] = ContextVar("key_prefix", default=())


@contextmanager
def keys_under(prefix: Sequence[str]) -> Iterator[None]:
    """Give the keys this prefix for the duration of one run or tick."""
    token = _key_prefix.set(tuple(prefix))
    try:
        yield
    finally:
        _key_prefix.reset(token)


def places_key() -> dg.AssetKey:
    """Return the key of the asset `places` in the code location that is served."""
    return PLACES.with_prefix(_key_prefix.get())
