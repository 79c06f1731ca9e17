"""`mohe retry` and `mohe unblock`: a person asks again for what the platform gave up."""

from typing import Annotated

import typer

from mohe_assets import settings as settings_module
from mohe_assets.errors import SettingsError
from mohe_assets.platform import Platform
from mohe_assets.store import api_budget


def retry(
    regions: Annotated[
        list[str] | None,
        typer.Argument(help="Codes, partition keys or names, such as 11680 or '서울특별시 강남구'; all if none."),
    ] = None,
) -> None:
    """Make failed regions PENDING again, with their count of failures at zero."""
    with Platform.open(settings_module.load()) as platform:
        codes = None if not regions else [_code(word, platform.regions.leaf_names()) for word in regions]
        retried = platform.checkpoints.retry(codes)
    typer.echo(f"{len(retried)} failed regions are PENDING again{': ' + ', '.join(retried) if retried else ''}.")


def unblock() -> None:
    """Let refused credentials be tried again: the next run finds out with one call. Changed ones need no unblocking."""
    with Platform.open(settings_module.load()) as platform:
        api = platform.account.api
        count = api_budget.unblock(platform.database, api)
    typer.echo(f"{api} is unblocked." if count else f"{api} was not blocked.")


def _code(word: str, names: dict[str, str]) -> str:
    code = word.partition("_")[0]
    if code in names:
        return code
    found = [code for code, name in names.items() if word.replace("_", " ") == name]
    if not found:
        raise SettingsError(f"There is no region {word!r}; give a code such as 11680, a partition key or a full name.")
    return found[0]
