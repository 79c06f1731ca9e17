"""The databases and workers of the recovery tests, seen from more than one host."""

from mohe_assets_tests.recovery.conftest import (
    dagster_template,
    dagster_url,
    environment,
    few,
    instance,
    reference,
    template,
    the_page_agrees,
)

__all__ = ["dagster_template", "dagster_url", "environment", "few", "instance", "reference", "template", "the_page_agrees"]
