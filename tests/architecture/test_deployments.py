"""compose.yaml and k8s/ tell every service what `likeness up` tells it, or say here why not.

A setting that a platform of one machine has and a deployment lacks is how images once lay unsealed in the bucket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from services.audit.settings import AuditSettings
from services.embed.settings import EmbedSettings
from services.ingest.settings import IngestSettings
from services.local.deployment import DEFAULT_PORTS, SERVICES, DataFolder, environment
from services.review.settings import ReviewSettings
from services.rpc.access import CALLERS, TOOLS
from services.search.settings import SearchSettings

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
}
SETTINGS: Mapping[str, type[BaseModel]] = {
    "audit": AuditSettings,
    "embed": EmbedSettings,
    "ingest": IngestSettings,
    "review": ReviewSettings,
    "search": SearchSettings,
}
# Which service answers for each of the wire's services.
_OWNERS: Mapping[str, str] = {
    **dict.fromkeys(("Embed", "Films", "Pictures"), "embed"),
    **dict.fromkeys(("Ledger", "References", "Migrations"), "ingest"),
    **dict.fromkeys(("Gallery", "Identification", "Unsolved", "Probes", "Agreements", "Models"), "search"),
    "Audit": "audit",
    "Review": "review",
}
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
        given = {name: value for service in deployment().values() for name, value in service.items()}
        assert given["LIKENESS_INGEST__LIFE__CERTIFICATE_KEY_PATH"]
        sealed = ("LIKENESS_INGEST__IMAGES", "LIKENESS_SEARCH__PROBES", "LIKENESS_REVIEW__IMAGES")
        # Whoever has the records does not have the keys, and an erasure in one store is none of the others' affair.
        databases = [given[f"LIKENESS_{name}__DATABASE__URL"] for name in ("INGEST", "SEARCH", "REVIEW")]
        places = [str(place) for place in [*databases, *(given[f"{store}__KEYS_URL"] for store in sealed)]]
        assert len(set(places)) == len(places)
        assert len({given[f"{store}__MASTER_KEY_PATH"] for store in sealed}) == len(sealed)


@pytest.mark.parametrize("service", ["ingest", "search", "review"])
def test_every_pod_of_a_service_has_the_one_master_key_that_it_writes(service: str) -> None:
    [pod] = [each["spec"]["template"]["spec"] for each in _manifests(service) if each["kind"] == "Deployment"]
    [claim] = [each for each in _manifests(service) if each["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    [volume] = [each for each in pod["volumes"] if "persistentVolumeClaim" in each]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    [mount] = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    assert not mount.get("readOnly")
    given = _in_kubernetes()[service]
    [path] = [value for name, value in given.items() if name.endswith("MASTER_KEY_PATH")]
    assert path == f"{mount['mountPath']}/master.key"


@pytest.mark.parametrize("service", SERVICES)
def test_no_path_is_left_to_a_default_on_a_file_system_that_nobody_may_write(service: str) -> None:
    """A relative path lies in the working folder, which is read-only in compose and gone with its pod in a cluster."""
    for deployment in (_composed, _in_kubernetes):
        given = {name.removeprefix(f"LIKENESS_{service.upper()}__") for name in deployment()[service]}
        left = {name for name in _relative_paths(SETTINGS[service]()) if name not in given}
        # Of the adapters that a deployment does not use.
        assert left <= {"EVENTS__PATH", "IMAGES__PATH", "PROBES__PATH"}, (service, deployment.__name__)


def _relative_paths(settings: BaseModel, prefix: str = "") -> Iterator[str]:
    for name, value in settings:
        if isinstance(value, BaseModel):
            yield from _relative_paths(value, f"{prefix}{name.upper()}__")
        elif isinstance(value, Path) and not value.is_absolute():
            yield prefix + name.upper()


def test_network_policies_let_through_what_certificates_permit_and_nothing_else() -> None:
    """services/rpc/access.py and k8s/base/network.yaml say the same of who calls whom, both ways."""
    permitted = {
        (caller, _OWNERS[method.split("/")[1].rpartition(".")[2]])
        for method, callers in CALLERS.items()
        for caller in callers - {TOOLS}
        if method.startswith("/likeness.v1.")
    }
    ports = {pair.grpc: service for service, pair in DEFAULT_PORTS.items() if service in SERVICES}
    ways: dict[str, set[tuple[str, str]]] = {"ingress": set(), "egress": set()}
    for policy in _manifests("network"):
        owners = _names(policy["spec"]["podSelector"])
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                others = [name for peer in rule[side] for name in _names(peer.get("podSelector", {}))]
                for owner, other, port in product(owners, others, rule["ports"]):
                    caller, callee = (other, owner) if direction == "ingress" else (owner, other)
                    if port["port"] in ports:
                        assert ports[port["port"]] == callee, policy["metadata"]["name"]
                        ways[direction].add((caller, callee))
    assert ways == {"ingress": permitted, "egress": permitted}


def _names(selector: Mapping[str, Any]) -> list[str]:
    listed = [name for each in selector.get("matchExpressions", ()) for name in each["values"]]
    single = selector.get("matchLabels", {}).get("app.kubernetes.io/name")
    return [*listed, *([single] if single else [])]


def test_an_autoscaler_alone_says_how_many_pods_there_are() -> None:
    """A number in the manifest would take pods away whenever somebody applies it. The log has one writer."""
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]: each["spec"]
        for each in _manifests("availability")
        if each["kind"] == "HorizontalPodAutoscaler"
    }
    budgets = {
        each["metadata"]["name"]: each["spec"]
        for each in _manifests("availability")
        if each["kind"] == "PodDisruptionBudget"
    }
    replicas = {
        name: each["spec"].get("replicas")
        for name in SERVICES
        for each in _manifests(name)
        if each["kind"] in {"Deployment", "StatefulSet"}
    }
    assert replicas == {**dict.fromkeys(scaled), "audit": 1, "review": 1}
    for name, spec in scaled.items():
        assert budgets[name]["minAvailable"] < spec["minReplicas"], "or no node can ever be emptied"


def test_embed_has_as_many_workers_as_it_asks_for_processors() -> None:
    """Left to itself it takes every core of the node, and with a worker for each more memory than its limit."""
    [pod] = [each["spec"]["template"]["spec"] for each in _manifests("embed") if each["kind"] == "Deployment"]
    processors = pod["containers"][0]["resources"]["requests"]["cpu"]
    for workers in ("INFERENCE", "GATE"):
        assert _in_kubernetes()["embed"][f"LIKENESS_EMBED__{workers}__WORKERS"] == processors


def _manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "k8s" / "base" / f"{name}.yaml").read_text("utf-8")))


def test_prometheus_sees_counts_by_watchlist_and_nobody_else_does() -> None:
    for deployment in (_composed, _in_kubernetes):
        for service in ("search", "ingest"):  # those that count by watchlist
            assert deployment()[service][f"LIKENESS_{service.upper()}__METRICS_TOKEN_PATH"] == "/config/metrics/token"
    for path in ("deploy/prometheus/prometheus.yml", "k8s/monitoring/scrape.yml"):
        scrapes = yaml.safe_load((ROOT / path).read_text("utf-8"))["scrape_configs"]
        [likeness] = [each for each in scrapes if each["job_name"] == "likeness"]
        assert likeness["authorization"] == {"credentials_file": "/config/metrics/token"}
