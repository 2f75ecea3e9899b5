"""compose.yaml and k8s/ tell every service what `likeness up` tells it, or say here why not.

A setting that a platform of one machine has and a deployment lacks is how images once lay unsealed in the bucket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.local.deployment import DEFAULT_PORTS, SERVICES, DataFolder, environment

ROOT = Path(__file__).parents[2]

# Not set in a deployment, each for its reason. What is set instead is checked where there is something.
INSTEAD: Mapping[str, str] = {
    "IMAGES__PATH": "IMAGES__BUCKET",
    "PROBES__PATH": "PROBES__BUCKET",
    "EVENTS__PATH": "EVENTS__BOOTSTRAP_SERVERS",
}
LEFT_OUT: Mapping[str, str] = {
    "HTTP_PORT": "the default is what is published and probed",
    "GRPC_PORT": "the same",
    "PEERS__*": "a service is told of those that it calls; network policies hold the pairs",
    # compose.yaml, for trying out, takes tokens
    "CONSOLE__TOKEN_SIGN_IN": "people sign in at the force's identity provider",
    "ALLOW_SYNTHETIC": "never on a platform with casework",
    "*RATE_LIMITS__*": "one person trying out a platform is faster than an operator; the defaults hold here",
    "NEAR_DUPLICATES__*": "the same",
    # docs/operations/real-servers.md; those of enrolled images are asked for below.
    "PROBES__KEYS_URL": "replicas of search would need one file of their master key: the bucket seals and locks probes",
    "PROBES__MASTER_KEY_PATH": "the same",
    "IMAGES__KEYS_URL": "the same of review's pictures",
    "IMAGES__MASTER_KEY_PATH": "the same",
}
# Settings that are switched on for a deployment although one machine leaves them alone.
SECRET = re.compile(r"KEY_PATH|KEYS_URL|PASSWORD|SECRET|ACCESS_KEY|DATABASE__URL|GALLERY__TOKEN")


def _local(service: str) -> set[str]:
    """The settings that `likeness up` gives a service."""
    prefix = f"LIKENESS_{service.upper()}__"
    given = environment(service, DataFolder(Path("data")), DEFAULT_PORTS, {})
    return {name.removeprefix(prefix) for name in given if name.startswith(prefix)}


def _is_left_out(name: str) -> bool:
    patterns = (re.escape(each).replace(r"\*", ".*") for each in LEFT_OUT)
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _composed() -> dict[str, dict[str, Any]]:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))["services"]
    return {name: services[name]["environment"] for name in SERVICES}


def _in_kubernetes() -> dict[str, dict[str, Any]]:
    found = {}
    for name in SERVICES:
        documents = yaml.safe_load_all((ROOT / "k8s" / "base" / f"{name}.yaml").read_text("utf-8"))
        [workload] = [each for each in documents if each["kind"] in {"Deployment", "StatefulSet"}]
        [container] = workload["spec"]["template"]["spec"]["containers"]
        found[name] = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    return found


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("deployment", [_composed, _in_kubernetes])
def test_what_one_machine_has_a_deployment_has(service: str, deployment: Any) -> None:
    prefix = f"LIKENESS_{service.upper()}__"
    given = {name.removeprefix(prefix) for name in deployment()[service]}
    wanted = {INSTEAD.get(name, name) for name in _local(service) if not _is_left_out(name)}
    assert wanted - given == set()
    assert [name for name in given if name == "ALLOW_SYNTHETIC"] == []


def test_secrets_of_compose_come_from_its_env_file_or_a_volume() -> None:
    for service, variables in _composed().items():
        for name, value in variables.items():
            if SECRET.search(name):
                assert "${" in str(value) or str(value).startswith(("/data/", "/config/")), (service, name)


def test_what_is_sealed_on_one_machine_is_sealed_everywhere() -> None:
    for deployment in (_composed, _in_kubernetes):
        ingest = deployment()["ingest"]
        for name in ("IMAGES__KEYS_URL", "IMAGES__MASTER_KEY_PATH", "LIFE__CERTIFICATE_KEY_PATH"):
            assert ingest[f"LIKENESS_INGEST__{name}"], name
        # Whoever has the ledger does not have the keys.
        assert ingest["LIKENESS_INGEST__IMAGES__KEYS_URL"] != ingest["LIKENESS_INGEST__DATABASE__URL"]


def test_prometheus_sees_counts_by_watchlist_and_nobody_else_does() -> None:
    for deployment in (_composed, _in_kubernetes):
        for service in ("search", "ingest"):  # those that count by watchlist
            assert deployment()[service][f"LIKENESS_{service.upper()}__METRICS_TOKEN_PATH"] == "/config/metrics/token"
    for path in ("deploy/prometheus/prometheus.yml", "k8s/monitoring/scrape.yml"):
        scrapes = yaml.safe_load((ROOT / path).read_text("utf-8"))["scrape_configs"]
        [likeness] = [each for each in scrapes if each["job_name"] == "likeness"]
        assert likeness["authorization"] == {"credentials_file": "/config/metrics/token"}
