"""Folders for sockets: this user's alone, wherever they are, or refused with a sentence."""

import os
from pathlib import Path

import pytest

from mohe_assets.cli.private_folder import LONGEST_SOCKET_PATH, socket_path
from mohe_assets.errors import SettingsError

NAME = "code-server.sock"


def long(tmp_path: Path) -> Path:
    return tmp_path / ("a" * LONGEST_SOCKET_PATH) / "run"


def test_a_folder_is_made_for_this_user_alone_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        path = socket_path(tmp_path / "home" / "run", NAME)
    finally:
        os.umask(before)
    assert path == tmp_path / "home" / "run" / NAME
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert socket_path(path.parent, NAME) == path, "and is taken again"


@pytest.mark.parametrize("prepared", ["symlink", "open", "file"])
def test_a_folder_that_others_have_prepared_is_refused(tmp_path: Path, prepared: str) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if prepared == "symlink":
        folder.symlink_to(elsewhere)
    elif prepared == "open":
        folder.mkdir()
        folder.chmod(0o755)
    else:
        folder.touch()
    with pytest.raises(SettingsError, match=rf"^{folder} "):
        socket_path(folder, NAME)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder to another account")
def test_a_folder_of_another_account_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(SettingsError, match="belongs to this user"):
        socket_path(folder, NAME)


def test_a_path_too_long_for_a_socket_is_put_into_the_users_own_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "user"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    path = socket_path(long(tmp_path), NAME)
    assert path.parent.parent == runtime
    assert len(os.fsencode(path)) <= LONGEST_SOCKET_PATH
    assert socket_path(long(tmp_path), NAME) == path


def test_without_a_runtime_folder_the_short_one_is_checked_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))  # open to others: not taken
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(shared))
    path = socket_path(long(tmp_path), NAME)
    assert (path.parent.parent, path.parent.stat().st_mode & 0o777) == (shared, 0o700)
    path.parent.rmdir()
    path.parent.symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="belongs to this user"):
        socket_path(long(tmp_path), NAME)
