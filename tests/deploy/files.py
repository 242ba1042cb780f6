"""The files of a deployment, read as data."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
KUBERNETES = ROOT / "deploy" / "kubernetes"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services of docker-compose.yml that run Meterline."""
    services: dict[str, dict[str, Any]] = compose()["services"]
    return {name: one for name, one in services.items() if one["image"].startswith("meterline")}


def manifests() -> Iterator[dict[str, Any]]:
    """The Kubernetes objects that the kustomization names."""
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    for name in listed:
        yield from yaml.safe_load_all((KUBERNETES / name).read_text())


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container of a workload, with the workload's name."""
    for one in manifests():
        if one["kind"] in ("Deployment", "Job"):
            for container in one["spec"]["template"]["spec"]["containers"]:
                yield one["metadata"]["name"], container


def read_env(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def filled(text: str, values: Mapping[str, str]) -> str:
    """Text in which compose has put the values of its variables: `${NAME:?why}`."""
    for name, value in values.items():
        before, mark, rest = text.partition("${" + name)
        while mark:
            text = before + value + rest.partition("}")[2]
            before, mark, rest = text.partition("${" + name)
    return text


def expressions() -> Iterator[str]:
    """Every expression of the rules and of the dashboard."""
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
