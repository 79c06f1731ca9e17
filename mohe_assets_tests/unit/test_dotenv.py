"""`.env` of the working folder is read as `dagster` reads it, and the environment wins over it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mohe_assets import settings as settings_module
from mohe_assets.errors import SettingsError
from mohe_assets.settings import Settings, variable

SECRET = "do-not-show-me"
MOHE = str(Path(sys.executable).with_name("mohe"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with an environment that has nothing but what a test sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"]})
    monkeypatch.setattr(settings_module, "_added", {})
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / ".env").write_text(text, encoding="utf-8")


def test_what_only_the_file_has_is_used_and_inherited_by_processes(folder: Path) -> None:
    write(folder, "# keys\n\nexport GOVT_API_KEY='a b'\nMOHE_HOME=\"here\"  # relative\n")
    with pytest.raises(SettingsError, match=r"^GOVT_API_KEY has a space"):
        settings_module.load()
    assert os.environ["GOVT_API_KEY"] == "a b"
    assert os.environ["MOHE_HOME"] == "here"


def test_the_environment_wins_even_with_an_empty_value(folder: Path) -> None:
    write(folder, "MOHE_DAILY_QUOTA=7\nMOHE_MAX_ATTEMPTS=9\nMOHE_REGIONS_PER_RUN=5\n")
    os.environ |= {"MOHE_DAILY_QUOTA": "8", "MOHE_MAX_ATTEMPTS": ""}
    settings = settings_module.load()
    assert (settings.daily_quota, settings.max_attempts, settings.regions_per_run) == (8, 5, 5)


def test_a_secret_of_the_environment_wins_in_either_form(folder: Path) -> None:
    (folder / "key").write_text(SECRET, encoding="utf-8")
    write(folder, "GOVT_API_KEY=old\nMOHE_READER_PASSWORD_FILE=missing\n")
    os.environ |= {"GOVT_API_KEY_FILE": "key", "MOHE_READER_PASSWORD": SECRET}
    settings = settings_module.load()
    assert settings.require_government_key() == SECRET
    assert settings.reader_password is not None
    assert settings_module.origin("GOVT_API_KEY") == "GOVT_API_KEY_FILE in environment"


def test_a_mapping_is_the_whole_truth(folder: Path) -> None:
    write(folder, "MOHE_DAILY_QUOTA=7\n")
    os.environ["MOHE_MAX_ATTEMPTS"] = "9"
    assert settings_module.load({}) == Settings()
    assert settings_module.log_format({}) == "text"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"A=1\n\n  = {SECRET}\n", ".env, line 3, is not NAME=value; correct it."),
        (f"A=1\n# it is\n'{SECRET}\n", ".env, line 3, is not NAME=value; correct it."),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_by_its_number(
    folder: Path, text: str, sentence: str
) -> None:
    write(folder, text)
    with pytest.raises(SettingsError) as caught:
        settings_module.load()
    assert str(caught.value) == sentence
    assert settings_module.log_format() == "text", "needed before the sentence is printed"


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / ".env").write_bytes(b"A=\xff")
    with pytest.raises(SettingsError, match=r"^\.env cannot be read: it is no text in UTF-8\.$"):
        settings_module.load()


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {"PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(
        [MOHE, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_config_shows_each_value_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    url = f"postgresql://u:{SECRET}@h/d?sslpassword={SECRET}&sslrootcert=ca.pem"
    write(
        tmp_path,
        f"\nGOVT_API_KEY={SECRET}\nMOHE_DATABASE_URL='{url}'\n"
        "NAVER_CLIENT_ID=id\nNAVER_CLIENT_SECRET_FILE=secret\nMOHE_DAILY_QUOTA=7\n",
    )
    done = run(tmp_path, "config", "--json", MOHE_DAILY_QUOTA="8", MOHE_CALLS_PER_SECOND="2.5")
    assert done.returncode == 0, done.stderr
    listed = {one["variable"]: one for one in json.loads(done.stdout)}
    assert list(listed) == [variable(name) for name in Settings.model_fields]
    found = {name: (one["value"], one["origin"]) for name, one in listed.items()}
    assert found["GOVT_API_KEY"] == ("xxxxxxxx", ".env, line 2")
    assert found["NAVER_CLIENT_SECRET"] == ("xxxxxxxx", "NAVER_CLIENT_SECRET_FILE in .env, line 5")
    assert found["MOHE_DATABASE_URL"] == (
        f"postgresql://u:xxxxxxxx@h/d?sslpassword=xxxxxxxx&sslrootcert={tmp_path}/ca.pem",
        ".env, line 3",
    )
    assert found["MOHE_CALLS_PER_SECOND"] == ("2.5", "environment")
    assert found["MOHE_HOME"] == (f"{tmp_path}/.mohe", "default")
    assert found["MOHE_CATALOG_DIR"] == (f"{tmp_path}/.mohe/catalog", "default")
    assert found["MOHE_DAGSTER_DATABASE_URL"] == (None, "default")
    assert found["MOHE_DAILY_QUOTA"] == ("8", "environment")
    assert [name for name, one in listed.items() if one["note"]] == ["MOHE_DAILY_QUOTA"]
    assert [name for name, one in listed.items() if one["secret"]] == sorted(
        settings_module.SECRETS, key=list(listed).index
    )
    shown = run(tmp_path, "config")
    assert "GOVT_API_KEY              = xxxxxxxx  (.env, line 2)\n" in shown.stdout
    assert SECRET not in done.stdout + shown.stdout
    assert not (tmp_path / ".mohe").exists()


def test_a_bad_file_ends_a_command_with_its_sentence(tmp_path: Path) -> None:
    write(tmp_path, "GOVT_API_KEY\nnonsense here\n")
    for command in ("config", "status", "doctor", "up", "env"):
        done = run(tmp_path, command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "mohe: .env, line 2, is not NAME=value; correct it.\n"
