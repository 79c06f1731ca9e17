"""A few of the 256 regions: choosing, keeping and naming them by code and partition key."""

from collections.abc import Callable, Collection

from mohe_assets.store.database import Database
from mohe_assets_tests.support.databases import read

# Types of the fixtures `few` and `collect_elsewhere`.
FewRegions = Callable[[int], list[str]]
Collect = Callable[..., None]


def keep_regions(database: Database, count: int) -> list[str]:
    """Delete all checkpoints but `count`, evenly spread; return the codes that are kept."""
    codes = [
        row["region_code"]
        for row in read(database, "SELECT region_code FROM batch_checkpoint ORDER BY region_code")
    ]
    kept = codes[:: len(codes) // count][:count]
    keep_checkpoints(database, kept)
    return kept


def keep_checkpoints(database: Database, codes: Collection[str]) -> None:
    """Delete all checkpoints but those of these regions, and let nothing seed them again."""
    listed = ", ".join(f"'{code}'" for code in sorted(codes))
    sql = f"""
    DELETE FROM batch_checkpoint WHERE region_code NOT IN ({listed});
    CREATE OR REPLACE FUNCTION no_other_checkpoints() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RETURN NULL; END';
    CREATE OR REPLACE TRIGGER no_other_checkpoints BEFORE INSERT ON batch_checkpoint
        FOR EACH ROW WHEN (NEW.region_code NOT IN ({listed}))
        EXECUTE FUNCTION no_other_checkpoints();
    """
    database.transaction(lambda connection: connection.exec_driver_sql(sql))


def keys_of(database: Database, codes: Collection[str] | None = None) -> list[str]:
    """Return partition keys in the order of codes: of these regions, or of all checkpoints."""
    sql = """SELECT r.partition_key
               FROM batch_checkpoint c JOIN region r USING (region_type, region_code)
              WHERE :any OR c.region_code = ANY(CAST(:codes AS text[])) ORDER BY r.partition_key"""
    return [
        row["partition_key"]
        for row in read(database, sql, any=codes is None, codes=sorted(codes or ()))
    ]


def code_of(key: str) -> str:
    """Return the region code of a partition key."""
    return key.partition("_")[0]


def name_of(key: str) -> str:
    """Return the region name of a partition key."""
    return key.partition("_")[2].replace("_", " ")
