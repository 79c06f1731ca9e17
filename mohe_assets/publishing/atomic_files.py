"""A folder of files for other people: each is there whole, as it was or as it is now, never half."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from mohe_assets.errors import SettingsError

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time; the folder is made. SettingsError if that cannot be done."""
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)  # under any umask: it is for other people
        lock = FileLock(folder / LOCK)
        lock.acquire()
    except OSError as error:
        message = f"MOHE_CATALOG_DIR is '{folder}'; it has to be a folder that can be made and written ({error.strerror})."
    else:
        try:
            yield
        finally:
            lock.release()
        return
    raise SettingsError(message)


@contextmanager
def replacing(folder: Path, names: Sequence[str]) -> Iterator[dict[str, BinaryIO]]:
    """Files to write into, by name, which take the places of the old ones in the order of `names`
    if all went well.

    Only for who holds the folder's lock.
    """
    drafts = {name: folder / f".{name}.tmp" for name in names}
    try:
        with ExitStack() as opened:
            files: dict[str, BinaryIO] = {
                name: opened.enter_context(draft.open("wb")) for name, draft in drafts.items()
            }
            yield files
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
        for name, draft in drafts.items():
            draft.replace(folder / name)
        _sync(folder)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Makes the new names survive a power loss, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
