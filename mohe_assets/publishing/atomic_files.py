"""Replace the files of a published folder atomically: readers see the old or the new content.

Other users may be able to write into the folder. Their files are neither written through nor waited
for: names are resolved in the opened folder, links are not followed, and drafts are new files.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mohe_assets.errors import SettingsError

LOCK = ".lock"
MAX_PLAIN_BYTES = 1_000_000  # of a manifest; more is not read
# Does not follow links, wait for a pipe, or acquire a controlling terminal.
_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder and hold its lock. Raises SettingsError if this is impossible."""
    with ExitStack() as opened:
        try:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o755)  # readable for others under any umask
            there = opened.enter_context(_opened(folder))
            # Not truncated or written: it may be a hard link to another of our files.
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o666, dir_fd=there)
            opened.callback(os.close, lock)
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                raise OSError(0, f"{LOCK} in it is no file")  # noqa: TRY301 - the same sentence
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            message = (
                f"MOHE_CATALOG_DIR is '{folder}'; it has to be a folder that can be made and "
                f"written ({error.strerror})."
            )
        else:
            yield
            return
    raise SettingsError(message)


@contextmanager
def replacing(folder: Path, names: Sequence[str]) -> Iterator[dict[str, BinaryIO]]:
    """Yield drafts by name, which replace the files in the order of `names` if nothing was raised.

    The caller holds the folder's lock. Raises SettingsError if a name cannot be replaced.
    """
    drafts = {name: f".{name}.tmp" for name in names}
    with _opened(folder) as there:
        files: dict[str, BinaryIO] = {}
        try:
            with ExitStack() as opened:
                for name, draft in drafts.items():
                    with _explained(folder, draft):
                        # A draft of a killed writer, or a file of another user.
                        _remove(draft, there)
                        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY
                        descriptor = os.open(draft, flags, 0o666, dir_fd=there)
                    files[name] = opened.enter_context(os.fdopen(descriptor, "wb"))
                yield files
                for file in files.values():
                    file.flush()
                    os.fsync(file.fileno())
            for name, draft in drafts.items():
                with _explained(folder, name):
                    os.replace(draft, name, src_dir_fd=there, dst_dir_fd=there)
            os.fsync(there)  # so that the new names survive a power loss
        finally:
            for name in files:
                _remove(drafts[name], there)


def read_plain(folder: Path, name: str) -> bytes:
    """Return the content of a regular file of at most MAX_PLAIN_BYTES; raises OSError otherwise."""
    with _opened(folder) as there:
        descriptor = os.open(name, os.O_RDONLY | _CAREFULLY, dir_fd=there)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_PLAIN_BYTES:
                raise OSError(0, "no small file", name)
            return file.read(MAX_PLAIN_BYTES)


def size_of(folder: Path, name: str) -> int:
    """Return the size of a regular file, -1 for other kinds; OSError if the name does not exist."""
    status = (folder / name).lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open the folder, which stays the same folder even if it is renamed."""
    if folder.is_symlink() and folder.lstat().st_uid not in (0, os.geteuid()):
        raise PermissionError(0, "it is a link that another user made")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _remove(name: str, there: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=there)


@contextmanager
def _explained(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(
            f"'{folder / name}' in MOHE_CATALOG_DIR cannot be written ({error.strerror}); "
            "remove what has that name, or choose a folder into which only this user may write."
        ) from None
