"""The Kubernetes manifests, as far as they can be known without a cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from meterline.server.roles import parts_of
from meterline.server.settings import load_settings
from tests.deploy.files import KUBERNETES, containers, manifests, read_env

_SECRETS = read_env(KUBERNETES / "secrets.env.example")
_VALID = {
    "METERLINE_DATABASE__URL": "postgresql://u:p@h/n",
    "METERLINE_CLICKHOUSE__PASSWORD": "p",
    "METERLINE_AUTH__FIRST_KEY": "ml_0123456789ab_" + 43 * "x",
}


def found(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in manifests() if one["kind"] == kind}


def test_every_manifest_is_listed() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    others = {"kustomization.yaml", "prometheus-adapter.yaml"}
    assert {file.name for file in KUBERNETES.glob("*.yaml")} - others == {
        *kustomization["resources"]
    }


@pytest.mark.parametrize("role", ["ingest", "sink", "api"])
def test_its_settings_are_settings(
    role: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _SECRETS.keys() == _VALID.keys()
    for name, value in {**read_env(KUBERNETES / "settings.env"), **_VALID}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(flags={"server.role": role})
    parts_of(settings)
    # Sinks beyond the partitions would idle.
    most = found("HorizontalPodAutoscaler")["meterline-sink"]["spec"]["maxReplicas"]
    assert most <= settings.kafka.partitions


def test_no_secret_is_kept_here() -> None:
    assert all("CHANGE-ME" in value for value in _SECRETS.values())
    assert not [one for one in manifests() if one["kind"] == "Secret"]
    for name in read_env(KUBERNETES / "settings.env"):
        assert not any(word in name for word in ("PASSWORD", "SECRET", "KEY", "DATABASE__URL"))


def test_each_role_has_a_deployment_that_can_be_disrupted_and_scaled() -> None:
    names = {"meterline-gateway", "meterline-sink", "meterline-api"}
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"):
        assert found(kind).keys() == names
    roles = {name: one["args"] for name, one in containers()}
    assert roles == {
        "meterline-gateway": ["serve", "--role", "ingest"],
        "meterline-sink": ["serve", "--role", "sink"],
        "meterline-api": ["serve", "--role", "api"],
        "meterline-migrate": ["migrate"],
    }


def test_selectors_find_their_pods() -> None:
    for name, deployment in found("Deployment").items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        wanted = {"app.kubernetes.io/component": name.removeprefix("meterline-")}
        assert labels == wanted
        assert deployment["spec"]["selector"]["matchLabels"] == wanted
        assert found("Service")[name]["spec"]["selector"] == wanted
        assert found("PodDisruptionBudget")[name]["spec"]["selector"]["matchLabels"] == wanted
        target = found("HorizontalPodAutoscaler")[name]["spec"]["scaleTargetRef"]["name"]
        assert target == name


def test_probes_ask_what_the_server_answers() -> None:
    for name, container in containers():
        if name == "meterline-migrate":
            continue
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        ready = container["readinessProbe"]["httpGet"]["path"]
        # An API server that is behind still serves, and its answers say as of when.
        assert ready == ("/readyz?exclude=freshness" if name == "meterline-api" else "/readyz")
        assert container["readinessProbe"]["httpGet"]["port"] == "http"
        assert container["ports"] == [{"name": "http", "containerPort": 8888}]


def test_pods_have_as_few_rights_as_they_can() -> None:
    workloads = [one for one in manifests() if one["kind"] in ("Deployment", "Job")]
    for one in workloads:
        pod = one["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
    for _, container in containers():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_a_stop_has_the_time_that_it_may_take() -> None:
    settings = load_settings()
    for one in found("Deployment").values():
        pod = one["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > 5 + settings.server.shutdown_grace_seconds


def test_sinks_scale_by_lag_through_a_metric_that_is_there() -> None:
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"][
        "custom"
    ]
    metrics = found("HorizontalPodAutoscaler")["meterline-sink"]["spec"]["metrics"]
    named = [one["pods"]["metric"]["name"] for one in metrics if one["type"] == "Pods"]
    assert named == ["meterline_sink_lag_events"] == [rule["name"]["as"]]


def test_every_role_is_behind_a_network_policy() -> None:
    for direction in ("Ingress", "Egress"):
        covered: set[str] = set()
        for policy in found("NetworkPolicy").values():
            selector = policy["spec"]["podSelector"]
            if policy["spec"]["policyTypes"] == [direction]:
                covered |= {*selector.get("matchLabels", {}).values()}
                for expression in selector.get("matchExpressions", ()):
                    covered |= {*expression["values"]}
        assert covered >= {"gateway", "sink", "api"}
