"""A folder of files for other people: each is there whole, as it was or as it is now, never half.

Others may be able to write into the folder. What they put there is never written through, nor
waited for: names are looked up in the folder that was opened, links are not followed, and drafts
are new files.
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
MAX_PLAIN_BYTES = 1_000_000
# A pipe is not waited for, and a terminal does not become ours.
_CAREFULLY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time; the folder is made. SettingsError if that cannot be done."""
    with ExitStack() as opened:
        try:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o755)  # under any umask: it is for other people
            there = opened.enter_context(_opened(folder))
            # Neither made empty nor written to: it may be a hard link to a file of ours.
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | _CAREFULLY, 0o666, dir_fd=there)
            opened.callback(os.close, lock)
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                raise OSError(0, f"{LOCK} in it is no file")  # noqa: TRY301 - the same sentence
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            message = f"MOHE_CATALOG_DIR is '{folder}'; it has to be a folder that can be made and written ({error.strerror})."
        else:
            yield
            return
    raise SettingsError(message)


@contextmanager
def replacing(folder: Path, names: Sequence[str]) -> Iterator[dict[str, BinaryIO]]:
    """Files to write into, by name, which take the places of the old ones in the order of `names`
    if all went well.

    Only for who holds the folder's lock. SettingsError if something that cannot be replaced has one
    of the names.
    """
    drafts = {name: f".{name}.tmp" for name in names}
    with _opened(folder) as there:
        files: dict[str, BinaryIO] = {}
        try:
            with ExitStack() as opened:
                for name, draft in drafts.items():
                    files[name] = opened.enter_context(_new_file(folder, draft, there))
                yield files
                for file in files.values():
                    file.flush()
                    os.fsync(file.fileno())
            for name, draft in drafts.items():
                _rename(folder, draft, name, there)
            os.fsync(there)  # makes the new names survive a power loss, too
        finally:
            for name in files:
                _remove(drafts[name], there)


def read_plain(folder: Path, name: str) -> bytes:
    """Return the content of a small file. OSError if it is anything else, or larger than
    MAX_PLAIN_BYTES.
    """
    with _opened(folder) as there:
        descriptor = os.open(name, os.O_RDONLY | _CAREFULLY, dir_fd=there)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_PLAIN_BYTES:
                raise OSError(0, "no small file", name)
            return file.read(MAX_PLAIN_BYTES)


def size_of(folder: Path, name: str) -> int:
    """Return the size of a file, -1 for anything else. OSError if nothing has that name."""
    found = (folder / name).lstat()
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The folder itself: it stays the same if its name is given to another."""
    if folder.is_symlink() and folder.lstat().st_uid not in (0, os.geteuid()):
        raise PermissionError(0, "it is a link that another user made")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _new_file(folder: Path, name: str, there: int) -> BinaryIO:
    """A file that was not there: what has its name is a draft of a writer that was killed, or was
    put there by others.
    """
    try:
        _remove(name, there)
        return os.fdopen(
            os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CAREFULLY, 0o666, dir_fd=there),
            "wb",
        )
    except OSError as error:
        raise _in_the_way(folder, name, error) from None


def _remove(name: str, there: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=there)


def _rename(folder: Path, draft: str, name: str, there: int) -> None:
    try:
        os.replace(draft, name, src_dir_fd=there, dst_dir_fd=there)
    except OSError as error:
        raise _in_the_way(folder, name, error) from None


def _in_the_way(folder: Path, name: str, error: OSError) -> SettingsError:
    return SettingsError(
        f"'{folder / name}' in MOHE_CATALOG_DIR cannot be written ({error.strerror}); "
        "remove what has that name, or choose a folder into which only this user may write."
    )
