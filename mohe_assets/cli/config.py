"""`mohe config`: every setting, its value, and where the value comes from."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from pydantic import SecretStr

from mohe_assets import settings as settings_module
from mohe_assets.settings import Settings, variable
from mohe_assets.store.database_url import DatabaseUrl
from mohe_assets.text.cleaning import one_line

MASK = "xxxxxxxx"  # a URL can hold it as it is


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting and its effective value: null if not set, masked if `secret`."""

    variable: str
    value: str | None
    origin: str
    secret: bool
    note: str


def config(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON list of settings, for scripts.")
    ] = False,
) -> None:
    """Show every setting, its value with secrets masked, and where it comes from: default,
    environment, or a line of .env.
    """
    listed = list_settings(settings_module.load())
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in listed], ensure_ascii=False, indent=2))
        return
    width = max(len(one.variable) for one in listed)
    for one in listed:
        origin = f"{one.origin}; {one.note}" if one.note else one.origin
        typer.echo(f"{one.variable:{width}} = {one_line(one.value or '')}  ({origin})")


def list_settings(settings: Settings) -> list[Setting]:
    """Return all settings, in the order of `Settings`."""
    found = []
    for field in Settings.model_fields:
        name = variable(field)
        # The effective value of an optional setting has the name without this prefix.
        value = getattr(settings, field.removeprefix("configured_"))
        if field == "catalog_dir":
            value = settings.catalog_folder
        note = ""
        if settings_module.overridden(name):
            note = f"{settings_module.DOTENV} has another value, which Dagster's commands use"
        found.append(
            Setting(
                variable=name,
                value=_text(value),
                origin=settings_module.origin(name),
                secret=name in settings_module.SECRETS,
                note=note,
            )
        )
    return found


def _text(value: object) -> str | None:
    """Return the value as its variable would hold it, without secrets."""
    if isinstance(value, SecretStr):
        return _masked(value.get_secret_value())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value) or None
    if isinstance(value, float):
        return f"{value:g}"
    return None if value is None else str(value)


def _masked(secret: str) -> str:
    if not secret.startswith("postgresql://"):
        return MASK
    return str(DatabaseUrl.parse(secret).without_secrets(MASK))
