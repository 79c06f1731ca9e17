"""`mohe env`: the variables that make plain `dagster` commands work here."""

import os
import shlex
import sys
import tempfile
from collections.abc import Mapping
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
from mohe_assets.settings import SECRETS, Settings

# Working folder of Dagster's processes. In the user's folder they would read `.env` again, let it
# win over the environment, and give its keys to the web server and the daemon; Dagster would also
# import modules from there.
DAGSTERS_FOLDER = "/"
# Commands of Dagster that print a warning about their successors in `dg`.
SUPERSEDED = ("job_execute_command", "asset_materialize_command", "dev_command")
# Variables that name a file or a folder for requests and OpenSSL.
FILES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def env() -> None:
    """Start the database if needed, migrate it, and print `export` lines for a shell: eval
    "$(mohe env)".
    """
    settings = settings_module.load()
    urls, redirecting = resolve_urls(settings), redirecting_variables(os.environ)
    # This environment's programs come first on the PATH: there may be another `dagster`.
    own = str(Path(sys.executable).parent)
    others = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join([own, *(folder for folder in others if folder != own)])
    exported = {**environment(settings, ensure_ready(settings)), "PATH": path}
    if urls.embedded is not None:
        for name in redirecting:  # Dagster's processes would follow them past the URL
            typer.echo(f"unset {name}")
    for name, value in exported.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def environment(settings: Settings, urls: DatabaseUrls) -> dict[str, str]:
    """Prepare DAGSTER_HOME; return the variables for Dagster's processes beside the settings."""
    folder = settings.home / "dagster"
    try:
        make_private(folder)
        place_dagster_yaml(folder / "dagster.yaml", settings.dagster_yaml)
    except OSError as error:
        path = error.filename or folder
        message = f"{path}, in MOHE_HOME, cannot be written: {error.strerror}."
    else:
        return variables(settings, urls)
    raise SettingsError(message)


def place_dagster_yaml(path: Path, own: Path | None) -> None:
    """Update the file to this version's, unless it was changed by hand; `mohe doctor` compares.

    With `own`, the user's file elsewhere, the path becomes a link to it.
    """
    if own is not None:
        _link(path, own.absolute())
        return
    content = packaged_file("dagster.yaml").read_bytes()
    found = path.read_bytes() if path.exists() else None
    if found is None or (found != content and is_shipped_dagster_yaml(found)):
        place(path, content)


def _link(path: Path, own: Path) -> None:
    if not own.is_file():
        raise SettingsError(f"MOHE_DAGSTER_YAML is {own}, which is no file.")
    if path.is_symlink() and path.readlink() == own:
        return
    if path.exists() and not path.is_symlink() and not is_shipped_dagster_yaml(path.read_bytes()):
        raise SettingsError(
            f"{path} was changed by hand, and MOHE_DAGSTER_YAML names another file: "
            "remove one of them."
        )
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.symlink_to(own)
    draft.replace(path)


def variables(settings: Settings, urls: DatabaseUrls) -> dict[str, str]:
    """Return the variables of `environment` without writing a file."""
    return {
        "MOHE_HOME": str(settings.home),
        # Absolute: a code server may run in another folder than the shell.
        "MOHE_CATALOG_DIR": str(settings.catalog_folder),
        "MOHE_DATABASE_URL": urls.data,
        "MOHE_DAGSTER_DATABASE_URL": urls.dagster,
        "DAGSTER_HOME": str(settings.home / "dagster"),
        "PYTHONWARNINGS": _without_supersession(os.environ.get("PYTHONWARNINGS", "")),
    }


def _without_supersession(filters: str) -> str:
    """Return PYTHONWARNINGS without Dagster's advice to use `dg`, which is an extra here."""
    own = [f"ignore:Function `{name}` is superseded" for name in SUPERSEDED]
    return ",".join(dict.fromkeys([*filter(None, filters.split(",")), *own]))


def dagster_environment(
    variables: Mapping[str, str], settings: Settings, urls: DatabaseUrls
) -> dict[str, str]:
    """Return `variables` and `environment` for a process of Dagster in DAGSTERS_FOLDER."""
    found = {**variables, **environment(settings, urls)}
    for name, value in found.items():
        if value and (name in FILES or name.removesuffix("_FILE") in SECRETS - {name}):
            found[name] = str(Path(value).absolute())
    return found


def program(name: str) -> str:
    """Return the path of a command of this environment, independent of PATH."""
    return str(Path(sys.executable).with_name(name))


def place(path: Path, content: bytes) -> None:
    """Write a file atomically: containers that share DAGSTER_HOME may read or write it.

    An equal file stays as it is; if it cannot be written, no draft is left.
    """
    if path.exists() and path.read_bytes() == content:
        return
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        draft = Path(file.name)
        try:
            file.write(content)
            file.flush()
            draft.chmod(0o644)
            draft.replace(path)
        except OSError:
            draft.unlink()
            raise
