"""Published files in a folder that other people may write to: files planted there do no harm."""

import os
import threading
from pathlib import Path

import pytest

from mohe_assets.errors import SettingsError
from mohe_assets.publishing import atomic_files
from mohe_assets.publishing.atomic_files import LOCK, locked, read_plain, replacing, size_of

NAMES = ("places.csv", "catalog.json")
PLANTED = (*NAMES, *(f".{name}.tmp" for name in NAMES), LOCK)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of ours that has nothing to do with the folder."""
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shared"
    made.mkdir()
    return made


def write(folder: Path, text: str = "new") -> None:
    with locked(folder), replacing(folder, NAMES) as files:
        for name in NAMES:
            files[name].write(text.encode())


def test_files_take_their_names_whole_and_leave_no_draft(folder: Path) -> None:
    write(folder, "old")
    with pytest.raises(ZeroDivisionError), locked(folder), replacing(folder, NAMES) as files:
        files["places.csv"].write(b"half" * (1 // 0))
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        NAMES, "old"
    ) | {LOCK: ""}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_link_is_never_written_through(folder: Path, victim: Path, name: str) -> None:
    (folder / name).symlink_to(victim)
    if name == LOCK:
        with pytest.raises(SettingsError, match="MOHE_CATALOG_DIR is"):
            write(folder)
    else:
        write(folder)
        assert {name: (folder / name).read_text() for name in NAMES} == dict.fromkeys(NAMES, "new")
        assert not any(path.is_symlink() for path in folder.iterdir())
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_hard_link_is_never_written_through(
    folder: Path, victim: Path, name: str
) -> None:
    (folder / name).hardlink_to(victim)
    write(folder)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", PLANTED)
def test_a_dangling_link_makes_no_file_elsewhere(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).symlink_to(tmp_path / "elsewhere")
    if name == LOCK:
        with pytest.raises(SettingsError):
            write(folder)
    else:
        write(folder)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_pipe_holds_nobody_up(folder: Path, name: str) -> None:
    os.mkfifo(folder / name)
    if name == LOCK:
        with pytest.raises(SettingsError, match="is no file"):
            write(folder)
    else:
        write(folder)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_folder_is_refused_with_its_name(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    with pytest.raises(SettingsError, match="MOHE_CATALOG_DIR") as refused:
        write(folder)
    assert name == LOCK or str(folder / name) in str(refused.value)
    assert not {path.name for path in folder.iterdir()} - {*NAMES, LOCK, name}


def test_a_draft_planted_between_two_looks_is_refused(
    folder: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = atomic_files._remove

    def remove_and_plant(name: str, there: int) -> None:
        remove(name, there)
        os.symlink(victim, name, dir_fd=there)

    with locked(folder):
        monkeypatch.setattr(atomic_files, "_remove", remove_and_plant)
        with pytest.raises(SettingsError, match="cannot be written"), replacing(folder, NAMES):
            pytest.fail("it wrote into a file it did not make")
    assert victim.read_text() == "precious"


def test_a_folder_that_is_exchanged_for_a_link_gets_nothing(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with locked(folder), replacing(folder, NAMES) as files:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(other)
        files["places.csv"].write(b"new")
    assert list(other.iterdir()) == []
    assert (tmp_path / "moved" / "places.csv").read_text() == "new"


def test_a_folder_that_is_ones_own_link_is_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    write(tmp_path / "link")
    assert (folder / "places.csv").read_text() == "new"


def test_a_folder_that_is_the_link_of_another_user_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "link").lstat().st_uid + 1)
    if (tmp_path / "link").lstat().st_uid == 0:
        os.chown(tmp_path / "link", 12345, -1, follow_symlinks=False)
    with pytest.raises(SettingsError, match="a link that another user made"):
        write(tmp_path / "link")


@pytest.mark.parametrize("plant", ["link", "pipe", "folder", "large"])
def test_only_a_small_file_is_read(folder: Path, victim: Path, plant: str) -> None:
    path = folder / "catalog.json"
    match plant:
        case "link":
            path.symlink_to(victim)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            with path.open("wb") as file:
                file.truncate(atomic_files.MAX_PLAIN_BYTES + 1)
    with pytest.raises(OSError, match=r".") as refused:
        read_plain(folder, "catalog.json")
    assert not isinstance(refused.value, FileNotFoundError)
    assert size_of(folder, "catalog.json") == (
        atomic_files.MAX_PLAIN_BYTES + 1 if plant == "large" else -1
    )


def test_one_writer_at_a_time(folder: Path) -> None:
    order: list[str] = []

    def write_and_note() -> None:
        write(folder)
        order.append("other")

    with locked(folder):
        other = threading.Thread(target=write_and_note)
        other.start()
        other.join(0.2)
        order.append("first")
    other.join(10)
    assert order == ["first", "other"]
