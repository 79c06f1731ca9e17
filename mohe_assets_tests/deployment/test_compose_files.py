"""docker-compose.yml, Dockerfile and .env.example, as far as they can be checked where no Docker
engine runs.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dagster._config import process_config
from dagster_docker import DockerRunLauncher
from dockerfile_parse import DockerfileParser

from mohe_assets.settings import Settings, variable
from mohe_assets.simulator.config import SimulatorConfig
from mohe_assets_tests.support.compose import (
    DEMO,
    EXAMPLE,
    ROOT,
    Service,
    compose,
    services,
    with_all_it_waits_for,
)

KEYS = {
    "GOVT_API_KEY",
    "NAVER_CLIENT_ID",
    "NAVER_CLIENT_SECRET",
    "NCP_APIGW_API_KEY_ID",
    "NCP_APIGW_API_KEY",
}
# Variables that a person does not set in a container, or that belong to single services.
SET_BY_THE_FILE = {
    "MOHE_HOME",
    "MOHE_CATALOG_DIR",
    "MOHE_DATABASE_URL",
    "MOHE_DAGSTER_DATABASE_URL",
    "MOHE_COLLECTOR_PASSWORD",
    "MOHE_READER_PASSWORD",
    "MOHE_WEB_HOSTS",
    "MOHE_WEB_ADDRESS",
}


NAMES = {variable(name) for name in Settings.model_fields} - SET_BY_THE_FILE
PASSWORDS = {
    "MOHE_POSTGRES_PASSWORD": "of-the-owner",
    "MOHE_COLLECTOR_PASSWORD": "of-the-collector",
}


@pytest.fixture(scope="module")
def demo() -> dict[str, Service]:
    return services(DEMO)


@pytest.fixture(scope="module")
def plain() -> dict[str, Service]:
    """With what has to be set, and nothing else."""
    return services(EXAMPLE, PASSWORDS)


@pytest.fixture(scope="module")
def told() -> dict[str, Service]:
    """With everything that can be set."""
    ports = {
        "MOHE_WEB_ADDRESS": "192.0.2.7",
        "MOHE_WEB_PORT": "8080",
        "MOHE_POSTGRES_PORT": "15432",
    }
    return services(EXAMPLE, {**PASSWORDS, **ports, **{name: f"value of {name}" for name in NAMES}})


@pytest.fixture(scope="module")
def dockerfile() -> DockerfileParser:
    return DockerfileParser(str(ROOT / "Dockerfile"))


@pytest.mark.parametrize("missing", sorted(PASSWORDS))
def test_without_a_password_of_ones_own_nothing_starts(missing: str) -> None:
    done = compose("config", "--quiet", variables={**PASSWORDS, missing: ""})
    assert done.returncode == 1
    assert f"set {missing} in .env to a password of your choice" in done.stderr


def test_the_commands_of_the_batch_system_start_and_name_the_same_containers(
    demo: dict[str, Service],
) -> None:
    assert demo["batch"].raw["container_name"] == "mohe-batch"
    assert demo["postgres"].raw["container_name"] == "mohe-postgres"
    script = (ROOT / "deploy" / "compose" / "postgres" / "owner.sql").read_text(encoding="utf-8")
    assert "CREATE ROLE mohe_user LOGIN CREATEDB CREATEROLE PASSWORD" in script
    assert demo["postgres"].environment["POSTGRES_DB"] == "mohe_db"
    assert with_all_it_waits_for("batch", demo) == {"batch", "daemon", "migrate", "postgres"}, (
        "all that collects"
    )
    assert with_all_it_waits_for("webserver", demo) == {
        "webserver",
        "batch",
        "daemon",
        "migrate",
        "postgres",
    }
    for name in ("batch", "daemon"):
        assert demo[name].waits_for["migrate"] == "service_completed_successfully"
    for name in ("batch", "daemon", "webserver"):
        assert demo[name].waits_for["postgres"] == "service_healthy"
    assert demo["migrate"].waits_for == {"postgres": "service_healthy"}


def test_every_setting_reaches_the_container_in_which_runs_execute(
    told: dict[str, Service],
) -> None:
    given = told["batch"].environment
    assert {name: given.get(name) for name in NAMES} == {name: f"value of {name}" for name in NAMES}


def test_keys_are_in_one_container_and_the_owner_s_password_is_where_tables_are_made(
    told: dict[str, Service],
) -> None:
    assert {name for name, one in told.items() if KEYS & set(one.environment)} == {"batch"}
    assert {name for name, one in told.items() if "of-the-owner" in one.environment.values()} == {
        "postgres",
        "migrate",
    }
    assert {name for name, one in told.items() if "mohe_user@" in str(one.environment)} == {
        "migrate"
    }


def test_ports_are_open_to_this_machine_only_unless_told_otherwise(
    plain: dict[str, Service], told: dict[str, Service]
) -> None:
    published = {name: [*one.ports] for name, one in plain.items() if one.ports}
    assert published == {
        "postgres": ["127.0.0.1:5432:5432/tcp"],
        "webserver": ["127.0.0.1:3000:3000/tcp"],
    }
    assert told["webserver"].ports == ["192.0.2.7:8080:3000/tcp"]
    assert told["postgres"].ports == ["127.0.0.1:15432:5432/tcp"]


def test_what_runs_on_is_started_again_and_can_be_asked_how_it_is(demo: dict[str, Service]) -> None:
    assert {name for name, one in demo.items() if not one.restarted} == {"migrate"}
    for name, one in demo.items():
        assert one.health or name == "migrate"
        assert "privileged" not in one.raw


def test_every_container_is_limited_and_can_change_nothing_of_its_image(
    demo: dict[str, Service],
) -> None:
    for name, one in demo.items():
        assert one.raw["cap_drop"] == ["ALL"], name
        assert one.raw["security_opt"] == ["no-new-privileges:true"], name
        assert one.raw["read_only"] is True, name
        assert "/tmp" in one.raw["tmpfs"], name  # noqa: S108 - the container's
        assert one.raw["mem_limit"], name
        assert one.raw.get("init") is True or name == "postgres"
    added = {name: set(one.raw.get("cap_add", ())) for name, one in demo.items()}
    # Capabilities of its entrypoint: to change the owner of folders and to become postgres.
    assert added.pop("postgres") == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert set().union(*added.values()) == set()


def test_no_container_can_write_where_another_one_reads_its_program_or_configuration(
    demo: dict[str, Service],
) -> None:
    volumes = {name: [*one.raw.get("volumes", ())] for name, one in demo.items()}
    assert sorted(volumes.pop("postgres")) == [
        f"{ROOT}/deploy/compose/postgres:/docker-entrypoint-initdb.d:ro",
        "mohe-postgres:/var/lib/postgresql:rw",
    ]
    assert {name: used for name, used in volumes.items() if used} == {
        "batch": ["mohe-home:/var/lib/mohe:rw", "mohe-logs:/var/lib/mohe/dagster/storage:rw"],
        "webserver": ["mohe-logs:/var/lib/mohe/dagster/storage:ro"],
    }


def test_keys_can_be_given_as_secrets(tmp_path: Path) -> None:
    extra = ("--file", str(ROOT / "deploy" / "compose" / "secrets.yml"))
    variables = {**PASSWORDS, "MOHE_SECRETS_DIR": str(tmp_path)}
    done = compose(*extra, "config", variables=variables)
    assert done.returncode == 0, done.stderr
    text = yaml.safe_load(done.stdout)
    batch = text["services"]["batch"]
    for name, path in batch["environment"].items():
        if name.endswith("_FILE"):
            secret = path.removeprefix("/run/secrets/")
            assert name.removesuffix("_FILE") in KEYS
            assert text["secrets"][secret]["file"] == f"{tmp_path}/{secret}"
            assert secret in {
                one if isinstance(one, str) else one["source"] for one in batch["secrets"]
            }
    assert sum(name.endswith("_FILE") for name in batch["environment"]) == 3
    assert [name for name, one in text["services"].items() if "secrets" in one] == ["batch"]


def test_a_database_outside_takes_settings_only() -> None:
    extra = ("--file", str(ROOT / "deploy" / "compose" / "external-database.yml"))
    missing = compose(*extra, "config", variables=PASSWORDS)
    assert missing.returncode == 1
    assert "set MOHE_DATABASE_HOST in .env to the host of the database" in missing.stderr
    outside = {"MOHE_DATABASE_HOST": "db.example.org", "MOHE_DATABASE_PORT": "6432"}
    done = compose(*extra, "config", variables={**PASSWORDS, **outside})
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    urls = {
        url
        for one in found.values()
        for name, url in one.get("environment", {}).items()
        if name.endswith("DATABASE_URL")
    }
    assert urls == {
        f"postgresql://{role}@db.example.org:6432/{database}?sslmode=require"
        for role in ("mohe_user", "mohe_collector")
        for database in ("mohe_db", "dagster")
    }
    assert found["postgres"]["command"] == ["sleep", "infinity"]


def test_runs_as_containers_need_a_launcher_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = ROOT / "deploy" / "compose"
    own = yaml.safe_load((folder / "docker-runs" / "dagster.yaml").read_text(encoding="utf-8"))
    launcher = own.pop("run_launcher")
    assert own == yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    monkeypatch.setenv("MOHE_DOCKER_NETWORK", "mohe-assets_default")
    kind = DockerRunLauncher.config_type()  # type: ignore[no-untyped-call]
    checked = process_config(kind, launcher["config"])
    assert checked.success, checked.errors
    assert not KEYS & set(launcher["config"]["env_vars"]), "keys are files"

    extra = ("--file", str(folder / "docker-runs.yml"))
    done = compose(*extra, "config", variables={**PASSWORDS, "MOHE_DOCKER_GROUP": "999"})
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    with_socket = {name for name, one in found.items() if "docker.sock" in str(one.get("volumes"))}
    assert with_socket == {"daemon", "webserver"}
    for name in ("batch", "daemon", "webserver"):
        mounted = found[name]["environment"]["MOHE_DAGSTER_YAML"]
        assert any(f"dagster.yaml:{mounted}:ro" in one for one in found[name]["volumes"])
        assert found[name]["image"] == f"{launcher['config']['image']}"


def test_the_image_s_version_is_the_project_s(
    demo: dict[str, Service], dockerfile: DockerfileParser
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    labels = dockerfile.labels
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]
    ours = {one.raw["image"] for name, one in demo.items() if name != "postgres"}
    assert ours == {f"mohe-assets:{project['version']}"}


def test_the_demo_has_the_simulator_s_keys_and_keeps_its_places_apart_from_real_ones(
    demo: dict[str, Service], plain: dict[str, Service]
) -> None:
    config, given = SimulatorConfig(), demo["batch"].environment
    expected = (config.government_key, config.client_id, config.client_secret)
    assert (
        given["GOVT_API_KEY"],
        given["NAVER_CLIENT_ID"],
        given["NAVER_CLIENT_SECRET"],
    ) == expected
    assert (
        given["MOHE_NAVER_API_URL"]
        == given["MOHE_GOVERNMENT_API_URL"]
        == "http://mohe-simulator:8900"
    )
    assert "MOHE_NAVER_API_URL" not in plain["batch"].environment
    assert demo.keys() - plain.keys() <= {"simulator"}
    assert "COMPOSE_PROJECT_NAME=mohe-demo" in DEMO.read_text(encoding="utf-8").splitlines()


def test_the_example_names_what_the_compose_file_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    example = set(
        re.findall(
            r"^#?(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), flags=re.MULTILINE
        )
    )
    assert asked <= example
    assert example >= KEYS


def test_the_dockerfile_passes_its_linter() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [program, "--no-color", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_pinned_and_its_user_is_not_root(
    dockerfile: DockerfileParser, demo: dict[str, Service]
) -> None:
    assert all(
        re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+|dependencies", image)
        for image in dockerfile.parent_images
    )
    last = {one["instruction"]: one["value"] for one in dockerfile.structure}
    assert last["USER"].isdecimal()
    assert last["USER"] != "0"
    home = dockerfile.envs["MOHE_HOME"]
    assert dockerfile.envs["DAGSTER_HOME"] == f"{home}/dagster", "where `mohe env` puts it"
    assert last["VOLUME"] == home
    for name in ("migrate", "daemon", "webserver", "simulator"):
        assert f"{home}:uid=10001,gid=10001,mode=0700" in demo[name].raw["tmpfs"]
    assert dockerfile.envs["PYTHONSAFEPATH"] == "1"
    assert not f"{last['WORKDIR']}/".startswith(f"{home}/"), "a file in the volume is no program"


def test_the_image_is_given_all_that_the_wheel_is_made_of(dockerfile: DockerfileParser) -> None:
    copied = {
        source
        for one in dockerfile.structure
        if one["instruction"] == "COPY" and "--from" not in one["value"]
        for source in one["value"].split()[:-1]
    }
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert copied == allowed
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        *wheel["packages"],
        *wheel["force-include"],
        project["project"]["readme"],
        *project["project"]["license-files"],
        "pyproject.toml",
        "requirements",
    }
    assert copied == needed
