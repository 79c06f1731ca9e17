"""`mohe env`: the variables that make plain `dagster` commands work here."""

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import typer

from mohe_assets import settings as settings_module
from mohe_assets.errors import SettingsError
from mohe_assets.packaged_files import is_shipped_dagster_yaml, packaged_file
from mohe_assets.postgres.databases import (
    DatabaseUrls,
    ensure_ready,
    redirecting_variables,
    resolve_urls,
)
from mohe_assets.postgres.embedded import make_private
from mohe_assets.settings import Settings


def env() -> None:
    """Print `export` lines for a shell, once the database runs and its schema is current: eval
    "$(mohe env)".
    """
    settings = settings_module.load()
    urls, redirecting = resolve_urls(settings), redirecting_variables(os.environ)
    exported = environment(settings, ensure_ready(settings))
    if urls.embedded is not None:
        for name in redirecting:  # Dagster's processes would follow them past the URL
            typer.echo(f"unset {name}")
    bin_folder = str(Path(sys.executable).parent)
    if shutil.which("dagster") is None:
        exported["PATH"] = f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"
    for name, value in exported.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def environment(settings: Settings, urls: DatabaseUrls) -> dict[str, str]:
    """What a Dagster process needs besides the settings a person has set; makes DAGSTER_HOME ready."""
    folder = settings.home / "dagster"
    try:
        make_private(folder)
        place_dagster_yaml(folder / "dagster.yaml")
    except OSError as error:
        path = error.filename or folder
        message = f"{path}, in MOHE_HOME, cannot be written: {error.strerror}."
    else:
        return variables(settings, urls)
    raise SettingsError(message)


def place_dagster_yaml(path: Path) -> None:
    """Bring the file to this version's. One that a person has changed stays; `mohe doctor`
    compares.
    """
    content = packaged_file("dagster.yaml").read_bytes()
    found = path.read_bytes() if path.exists() else None
    if found is None or (found != content and is_shipped_dagster_yaml(found)):
        place(path, content)


def variables(settings: Settings, urls: DatabaseUrls) -> dict[str, str]:
    """What `environment` returns, without making anything."""
    return {
        "MOHE_HOME": str(settings.home),
        "MOHE_CATALOG_DIR": str(
            settings.catalog_folder
        ),  # absolute: code servers need not run where the shell is
        "MOHE_DATABASE_URL": urls.data,
        "MOHE_DAGSTER_DATABASE_URL": urls.dagster,
        "DAGSTER_HOME": str(settings.home / "dagster"),
    }


def program(name: str) -> str:
    """A command of this environment, whatever the PATH says."""
    return str(Path(sys.executable).with_name(name))


def place(path: Path, content: bytes) -> None:
    """Writes a file that other processes may be reading or writing at this moment: containers share
    DAGSTER_HOME.
    """
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as draft:
        draft.write(content)
    Path(draft.name).chmod(0o644)
    Path(draft.name).replace(path)
