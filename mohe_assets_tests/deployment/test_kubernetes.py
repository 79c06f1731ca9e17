"""The files of deploy/kubernetes, as far as they can be checked without a cluster and without the
chart.

Dagster reads the instance's configuration that the chart makes of values.yaml, its launcher makes a
run's job of them, and Kubernetes' own client reads every manifest. How the chart's templates place
a value is written down here as they do it.
"""

import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import kubernetes
import kubernetes_validate
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config
from dagster._core.run_coordinator.queued_run_coordinator import QueuedRunCoordinator
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job
from dagster_k8s.models import k8s_snake_case_dict
from typer.testing import CliRunner

from mohe_assets.cli import commands
from mohe_assets.settings import Settings, variable
from mohe_assets.store.database import LOSS_NOTICED

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
# Variables besides the settings: libpq's, and those of `mohe db migrate --roles`.
OTHER_VARIABLES = {"PGPASSWORD", "MOHE_COLLECTOR_PASSWORD", "MOHE_READER_PASSWORD"}
KINDS = {
    "Secret": kubernetes.client.V1Secret,
    "ConfigMap": kubernetes.client.V1ConfigMap,
    "PersistentVolumeClaim": kubernetes.client.V1PersistentVolumeClaim,
    "Job": kubernetes.client.V1Job,
    "NetworkPolicy": kubernetes.client.V1NetworkPolicy,
}

Values = dict[str, Any]


def manifests() -> Iterator[tuple[str, Values]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        if path.name != "values.yaml":
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                yield path.name, document


@pytest.fixture(scope="module")
def values() -> Values:
    return cast("Values", yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def deployment(values: Values) -> Values:
    (one,) = values["dagster-user-deployments"]["deployments"]
    return cast("Values", one)


def run_launcher(values: Values) -> Values:
    config = values["runLauncher"]["config"]["k8sRunLauncher"]
    run = config["runK8sConfig"]
    return {
        "load_incluster_config": True,
        "job_namespace": "mohe",
        "image_pull_policy": config["imagePullPolicy"],
        "service_account_name": "mohe-dagster",
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": "mohe-dagster-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "security_context": config["securityContext"],
        "run_k8s_config": {
            "pod_spec_config": run["podSpecConfig"],
            "job_spec_config": run["jobSpecConfig"],
        },
    }


def container_context(deployment: Values) -> Values:
    """The part of the code server's deployment that the chart passes on to its runs."""
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_config_maps": [one["name"] for one in deployment["envConfigMaps"]],
            "env_secrets": [one["name"] for one in deployment["envSecrets"]],
            "env": deployment["env"],
            "volumes": deployment["volumes"],
            "volume_mounts": deployment["volumeMounts"],
            "resources": deployment["resources"],
            "namespace": "mohe",
        }
    }


def instance_configuration(values: Values) -> Values:
    """The dagster.yaml that the chart makes."""
    daemon, postgres = values["dagsterDaemon"], values["postgresql"]
    monitoring = daemon["runMonitoring"]
    database = {
        "postgres_db": {
            "username": postgres["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": postgres["postgresqlHost"],
            "db_name": postgres["postgresqlDatabase"],
            "port": postgres["service"]["port"],
            "params": postgres["postgresqlParams"],
        }
    }
    return {
        "run_storage": {
            "module": "dagster_postgres.run_storage",
            "class": "PostgresRunStorage",
            "config": database,
        },
        "event_log_storage": {
            "module": "dagster_postgres.event_log",
            "class": "PostgresEventLogStorage",
            "config": database,
        },
        "schedule_storage": {
            "module": "dagster_postgres.schedule_storage",
            "class": "PostgresScheduleStorage",
            "config": database,
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": run_launcher(values),
        },
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
        "run_monitoring": {
            "enabled": monitoring["enabled"],
            "start_timeout_seconds": monitoring["startTimeoutSeconds"],
            "poll_interval_seconds": monitoring["pollIntervalSeconds"],
            "max_resume_run_attempts": monitoring["maxResumeRunAttempts"],
        },
        "retention": {
            "sensor": {"purge_after_days": values["retention"]["sensor"]["purgeAfterDays"]}
        },
        "python_logs": {"managed_python_loggers": values["pythonLogs"]["managedPythonLoggers"]},
        "telemetry": {"enabled": values["telemetry"]["enabled"]},
        **values["additionalInstanceConfig"],
    }


def test_dagster_accepts_the_instance_that_the_values_make(values: Values, tmp_path: Path) -> None:
    configuration = instance_configuration(values)
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    accepted, _ = dagster_instance_config(str(tmp_path))
    assert accepted["run_monitoring"] == configuration["run_monitoring"]
    for kind, section in (
        (K8sRunLauncher, "run_launcher"),
        (QueuedRunCoordinator, "run_coordinator"),
    ):
        assert configuration[section]["class"] == kind.__name__
        result = process_config(kind.config_type(), configuration[section]["config"])
        assert result.success, result.errors


def test_what_the_platform_relies_on_is_the_same_in_a_cluster_and_on_one_machine(
    values: Values,
) -> None:
    here = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    there = instance_configuration(values)
    for section in (
        "run_coordinator",
        "concurrency",
        "retention",
        "python_logs",
        "telemetry",
        "nux",
    ):
        assert there[section] == here[section], section
    patient = {
        "start_timeout_seconds": there["run_monitoring"]["start_timeout_seconds"],
        "max_resume_run_attempts": 0,
    }
    assert there["run_monitoring"] == {**here["run_monitoring"], **patient}
    assert patient["start_timeout_seconds"] > here["run_monitoring"]["start_timeout_seconds"]
    assert values["dagsterDaemon"]["runRetries"] == {"enabled": False}
    assert values["postgresql"]["postgresqlParams"] == {**LOSS_NOTICED, "sslmode": "require"}


def test_a_runs_pod_is_no_root_and_has_keys_settings_and_the_catalog(
    values: Values, deployment: Values
) -> None:
    launcher = K8sContainerContext.create_from_config(
        {
            "k8s": {
                "security_context": run_launcher(values)["security_context"],
                "run_k8s_config": run_launcher(values)["run_k8s_config"],
            }
        }
    )
    context = launcher.merge(K8sContainerContext.create_from_config(container_context(deployment)))
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(
            dagster_home=values["global"]["dagsterHome"],
            job_image=image_of(deployment["image"]),
            instance_config_map="mohe-dagster-instance",
            postgres_password_secret=values["global"]["postgresqlSecretName"],
        ),
        ["dagster", "api", "execute_run"],
        "dagster-run",
        component="run_worker",  # as the launcher does
        user_defined_k8s_config=context.run_k8s_config,
    )
    pod = job.spec.template.spec
    (container,) = pod.containers
    assert container.image == image_of(deployment["image"])
    assert (pod.security_context.run_as_non_root, pod.security_context.run_as_user) == (True, 10001)
    assert container.security_context.allow_privilege_escalation is False
    assert container.security_context.read_only_root_filesystem is True
    assert pod.automount_service_account_token is False
    policy = policies()["mohe-runs"]
    assert policy["podSelector"]["matchLabels"].items() <= job.spec.template.metadata.labels.items()
    assert {one.secret_ref.name for one in container.env_from if one.secret_ref} == {"mohe-keys"}
    assert {one.config_map_ref.name for one in container.env_from if one.config_map_ref} == {
        "mohe-settings"
    }
    passwords = {
        one.name: one.value_from.secret_key_ref.name for one in container.env if one.value_from
    }
    assert passwords == {"DAGSTER_PG_PASSWORD": "mohe-database", "PGPASSWORD": "mohe-database"}
    writable = {"/var/lib/mohe/catalog", "/var/lib/mohe/dagster", "/tmp"}  # noqa: S108 - the container's
    assert {one.mount_path for one in container.volume_mounts} >= writable
    assert container.resources.requests["memory"] == deployment["resources"]["requests"]["memory"]
    # Longer than a run takes to release its regions, so that a node that is drained costs nothing.
    assert pod.termination_grace_period_seconds >= 10
    assert job.spec.backoff_limit == 0, "the regions of a pod that died go on in other runs"


def image_of(image: Mapping[str, str]) -> str:
    return f"{image['repository']}:{image['tag']}"


def test_all_processes_run_one_image_without_root_and_only_those_that_call_the_apis_have_keys(
    values: Values, deployment: Values
) -> None:
    (migrate,) = (document for name, document in manifests() if name == "migrate.yaml")
    pod = migrate["spec"]["template"]["spec"]
    images = {
        image_of(one["image"])
        for one in (values["dagsterWebserver"], values["dagsterDaemon"], deployment)
    }
    assert images == {pod["containers"][0]["image"]}
    for one in (values["dagsterWebserver"], values["dagsterDaemon"], deployment):
        assert one["podSecurityContext"]["runAsNonRoot"] is True
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert "/tmp" in {mount["mountPath"] for mount in one["volumeMounts"]}  # noqa: S108 - the container's
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    for one in (values["dagsterWebserver"], values["dagsterDaemon"]):
        assert "envSecrets" not in one
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    assert "ingress" not in values


@pytest.mark.parametrize(("name", "document"), list(manifests()))
def test_kubernetes_client_knows_every_field_of_a_manifest(name: str, document: Values) -> None:
    assert name
    assert k8s_snake_case_dict(KINDS[document["kind"]], document)


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize(("name", "document"), list(manifests()))
def test_a_manifest_is_valid_by_the_schema_of_kubernetes(
    name: str, document: Values, version: str
) -> None:
    used = kubernetes_validate.validate(document, version, strict=True)
    assert version.startswith(used), name


def test_an_unknown_field_is_no_valid_manifest() -> None:
    (job,) = (document for name, document in manifests() if name == "migrate.yaml")
    wrong = {**job, "spec": {**job["spec"], "backOffLimit": 3}}
    with pytest.raises(kubernetes_validate.ValidationError, match="backOffLimit"):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_every_variable_is_one_that_somebody_reads() -> None:
    known = {variable(name) for name in Settings.model_fields} | OTHER_VARIABLES
    for name, document in manifests():
        given = set(document.get("data", {}) or document.get("stringData", {}))
        if document["kind"] == "Job":
            given = {
                one["name"] for one in document["spec"]["template"]["spec"]["containers"][0]["env"]
            }
        assert given - known - {"postgresql-password"} == set(), name


def test_every_name_that_is_referred_to_is_one_that_is_made(
    values: Values, deployment: Values
) -> None:
    made = {(document["kind"], document["metadata"]["name"]) for _, document in manifests()}
    used = {("Secret", values["global"]["postgresqlSecretName"]), ("Secret", "mohe-owner")}
    used |= {("Secret", one["name"]) for one in deployment["envSecrets"]}
    used |= {("ConfigMap", one["name"]) for one in deployment["envConfigMaps"]}
    used |= {
        ("PersistentVolumeClaim", one["persistentVolumeClaim"]["claimName"])
        for one in deployment["volumes"]
        if "persistentVolumeClaim" in one
    }
    assert used == {one for one in made if one[0] not in {"Job", "NetworkPolicy"}}
    # The chart's label of its pods is the release's name.
    release = policies()["mohe-among-themselves"]["podSelector"]["matchLabels"][
        "app.kubernetes.io/instance"
    ]
    for page in (FOLDER / "values.yaml", ROOT / "docs" / "cluster.md"):
        assert f"helm upgrade --install {release} " in page.read_text(encoding="utf-8")


def policies() -> dict[str, Values]:
    """The rules of the network by their name."""
    documents = (document for _, document in manifests() if document["kind"] == "NetworkPolicy")
    return {one["metadata"]["name"]: one["spec"] for one in documents}


def test_every_pod_may_call_what_it_needs_and_nothing_else() -> None:
    found = policies()
    assert all("Egress" in one["policyTypes"] for one in found.values())
    ports = {
        name: {port["port"] for rule in one["egress"] for port in rule.get("ports", ())}
        for name, one in found.items()
    }
    assert ports == {
        "mohe-among-themselves": {53, 5432},
        "mohe-daemon-to-cluster": {443, 6443},
        "mohe-code-server-to-apis": {443},
        "mohe-runs": {53, 5432, 443},
        "mohe-migration": {53, 5432},
    }
    # Without ports a rule is for every port, and only among our own pods.
    everything = [rule for one in found.values() for rule in one["egress"] if "ports" not in rule]
    assert everything == [{"to": [{"podSelector": found["mohe-among-themselves"]["podSelector"]}]}]
    assert found["mohe-migration"]["podSelector"]["matchLabels"] == {"job-name": "mohe-migrate"}
    assert "ingress" not in found["mohe-runs"]


def test_every_database_that_is_reached_over_a_network_is_reached_encrypted(values: Values) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yaml")))
    urls = re.findall(r"postgresql://\S+", text)
    assert len(urls) == 3
    assert [url for url in urls if "sslmode=" not in url] == []
    assert values["postgresql"]["postgresqlParams"]["sslmode"] == "require"


def test_the_secrets_are_a_template_without_values() -> None:
    for name, document in manifests():
        for key, value in document.get("stringData", {}).items():
            assert re.fullmatch("<[^<>]+>", value), f"{name}: {key}"
    text = (FOLDER / "values.yaml").read_text(encoding="utf-8")
    assert "postgresqlPassword:" not in text


def test_the_commands_exist_and_the_chart_is_dagsters_version(deployment: Values) -> None:
    (migrate,) = (document for name, document in manifests() if name == "migrate.yaml")
    program, *arguments = migrate["spec"]["template"]["spec"]["containers"][0]["command"]
    assert program == "mohe"
    shown = CliRunner().invoke(commands, [*arguments[:2], "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert arguments[2] in shown.output
    assert deployment["dagsterApiGrpcArgs"] == ["-m", "mohe_assets.definitions"]
    assert f"--version {metadata.version('dagster')} " in (FOLDER / "values.yaml").read_text(
        encoding="utf-8"
    )
