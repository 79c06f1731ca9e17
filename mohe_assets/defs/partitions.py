"""The partition set: a key per sigungu, which `sigungu_regions` adds from the government's list."""

import dagster as dg

sigungu_partitions = dg.DynamicPartitionsDefinition(name="sigungu")
