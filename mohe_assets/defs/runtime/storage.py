"""Dagster's storage at the URL of the settings: `storage: custom:` of dagster.yaml.

`mohe env` and `mohe up` export MOHE_DAGSTER_DATABASE_URL. Without it, as in a plain `dagster dev`
in a checkout, the embedded server is used, and started if it does not run.
"""

from collections.abc import Mapping
from typing import Any, Self

import click
from dagster_postgres import DagsterPostgresStorage

from mohe_assets import settings as settings_module
from mohe_assets.defs.runtime.dagster_internals import ConfigurableClassData
from mohe_assets.errors import DatabaseUnavailable, SettingsError


class MoheStorage(DagsterPostgresStorage):
    """PostgreSQL at the URL of the settings, without configuration in dagster.yaml."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        del config_value
        try:
            return cls(postgres_url=storage_url(), inst_data=inst_data)
        except (SettingsError, DatabaseUnavailable) as error:
            # Dagster's commands print this as a line.
            raise click.ClickException(str(error)) from None


def storage_url() -> str:
    """Return the URL of Dagster's database. Raises SettingsError, DatabaseUnavailable."""
    if named := settings_module.dagster_database_url():
        return named
    from mohe_assets.postgres.databases import running  # noqa: PLC0415 - only without the variable

    return running(settings_module.load()).dagster
