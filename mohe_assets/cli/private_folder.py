"""Folders for unix sockets that no other account can enter or prepare in advance."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from mohe_assets import settings
from mohe_assets.errors import SettingsError

# Bytes that Linux allows for a socket's path.
LONGEST_SOCKET_PATH = 107


def socket_path(folder: Path, name: str) -> Path:
    """Return `name` in `folder`, or in a folder with a short name if that path is too long.

    The folder is created with mode 0700. Raises SettingsError if other users can enter it.
    """
    for candidate in (folder, *_short_folders(folder)):
        path = candidate / name
        if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
            _make_private(candidate)
            return path
    raise SettingsError(f"{folder / name} is too long for a socket; choose a shorter MOHE_HOME.")


def _short_folders(folder: Path) -> list[Path]:
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    runtime = settings.process_environment().get("XDG_RUNTIME_DIR", "")
    found = [Path(runtime, f"mohe-{digest}")] if runtime and _is_private(Path(runtime)) else []
    # Shared with all users; the checks of the folder make it safe.
    shared = (tempfile.gettempdir(), "/tmp")  # noqa: S108
    return found + [Path(one, f"mohe-{os.geteuid()}-{digest}") for one in shared]


def _make_private(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be made: {error.strerror}.") from None
    if not _is_private(folder):
        raise SettingsError(
            f"{folder} has to be a folder that belongs to this user and is closed to all others "
            "(mode 0700), because a socket is put there; remove it, or choose another MOHE_HOME."
        )


def _is_private(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    closed = not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and closed
