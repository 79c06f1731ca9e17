"""The partition set: one key per sigungu, added by `sigungu_regions` as the government's list names
them.
"""

import dagster as dg

sigungu_partitions = dg.DynamicPartitionsDefinition(name="sigungu")
