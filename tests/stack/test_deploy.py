"""deploy/ and k8s/ without a container engine: validated by their own tools and held to what services really take."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
import yaml
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from services.audit.settings import AuditSettings
from services.embed.settings import EmbedSettings
from services.ingest.settings import IngestSettings
from services.local.deployment import DEFAULT_PORTS
from services.review.settings import ReviewSettings
from services.rpc.mtls import host_name
from services.search.settings import SearchSettings
from services.shared.ready import HTTP_PORTS
from services.shared.telemetry import Metrics
from tests.stack.servers import minio as minio_server
from tests.stack.servers.base import run
from tests.stack.servers.prometheus import tool
from tests.stack.servers.tools import validator

ROOT = Path(__file__).parent.parent.parent
DEPLOY, K8S = ROOT / "deploy", ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
SETTINGS: dict[str, type[BaseModel]] = {
    "AUDIT": AuditSettings,
    "EMBED": EmbedSettings,
    "INGEST": IngestSettings,
    "REVIEW": ReviewSettings,
    "SEARCH": SearchSettings,
}
SERVICES = tuple(name.lower() for name in SETTINGS)
_PINNED = re.compile(r"[\w./-]+:(?!latest$)[\w.+-]*\d[\w.+-]*(@sha256:[0-9a-f]{64})?")
Document = dict[str, Any]


def is_setting(variable: str) -> bool:
    """Whether a variable names a field that its service has. (pydantic-settings overlooks names that it lacks.)"""
    _, service, path = re.split(r"LIKENESS_([A-Z]+)__", variable, maxsplit=1)
    model: Any = SETTINGS[service]
    for part in path.lower().split("__"):
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return False
        model = fields[part].annotation
        if isinstance(model, UnionType):  # something that may be left out
            [model] = [each for each in get_args(model) if each is not type(None)]
    return True


class TestCompose:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        copy = tmp_path_factory.mktemp("compose") / "deploy"
        shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("local", ".env"))
        run([sys.executable, ROOT / "scripts" / "stack_secrets.py", copy], "stack_secrets.py", cwd=ROOT, timeout_s=300)
        return copy

    @pytest.fixture(scope="class")
    def composed(self, folder: Path) -> Document:
        shown = run(
            [validator("docker-compose"), "-f", folder / "compose.yaml", "config"],
            "docker-compose config",
            timeout_s=300,
        )
        composed: Document = yaml.safe_load(shown)
        return composed

    def test_secrets_are_kept_from_others_and_made_once(self, folder: Path) -> None:
        env = folder / ".env"
        before = env.read_text()
        assert env.stat().st_mode & 0o077 == 0
        assert all(line.partition("=")[2] for line in before.splitlines() if line and not line.startswith("#"))
        run(
            [sys.executable, ROOT / "scripts" / "stack_secrets.py", folder], "stack_secrets.py", cwd=ROOT, timeout_s=300
        )
        assert env.read_text() == before

    def test_every_image_is_pinned_and_every_server_is_watched(self, composed: Document) -> None:
        for name, service in composed["services"].items():
            assert _PINNED.fullmatch(service["image"]), name
            assert "healthcheck" in service or service.get("restart") == "no", name

    def test_services_run_with_nothing_they_do_not_need(self, composed: Document) -> None:
        for name in (*SERVICES, "audit-schema", "certificates"):
            service = composed["services"][name]
            assert service["read_only"] is True, name
            assert service["user"] == "10001:10001", name
            assert service["cap_drop"] == ["ALL"], name
            assert "no-new-privileges:true" in service["security_opt"], name

    def test_nothing_is_published_beyond_this_machine(self, composed: Document) -> None:
        published = {
            (name, port.get("host_ip"))
            for name, service in composed["services"].items()
            for port in service.get("ports", ())
        }
        assert {address for _, address in published} == {"127.0.0.1"}
        assert {name for name, _ in published} == {"search", "ingest", "audit", "review", "prometheus", "grafana"}

    def test_every_variable_is_a_setting(self, composed: Document) -> None:
        variables = [
            name
            for service in composed["services"].values()
            for name in service.get("environment") or ()
            if name.startswith("LIKENESS_")
        ]
        assert len(variables) > 40
        assert [name for name in variables if not is_setting(name)] == []

    def test_every_service_has_its_own_certificate_and_waits_for_it(self, composed: Document) -> None:
        for name in SERVICES:
            service = composed["services"][name]
            mounts = {each["target"]: each.get("source") for each in service["volumes"]}
            assert mounts["/config/tls"] == f"tls-{name}", name
            assert [target for target in mounts if "authority" in target] == []
            files = {f"LIKENESS_{name.upper()}__TLS__{part}" for part in ("CA_PATH", "CERT_PATH", "KEY_PATH")}
            assert files <= service["environment"].keys(), name
            assert service["depends_on"]["certificates"]["condition"] == "service_healthy"
        assert composed["services"]["certificates"]["network_mode"] == "none"

    def test_no_dependency_goes_in_a_circle(self, composed: Document) -> None:
        waits = {name: set(service.get("depends_on") or ()) for name, service in composed["services"].items()}
        while waits:
            free = {name for name, needed in waits.items() if not needed & waits.keys()}
            assert free, f"each waits for another: {sorted(waits)}"
            waits = {name: needed for name, needed in waits.items() if name not in free}


class TestDockerfile:
    @pytest.mark.parametrize("path", ["Dockerfile", "minio/Dockerfile"])
    def test_bases_are_pinned_and_the_last_user_is_not_root(self, path: str) -> None:
        lines = (DEPLOY / path).read_text().splitlines()
        bases = [line.partition("=")[2] for line in lines if re.match(r"ARG \w+_IMAGE=", line)]
        assert bases
        assert all(_PINNED.fullmatch(base) for base in bases)
        assert [line for line in lines if line.startswith("USER ")][-1].split()[1].split(":")[0] not in {"0", "root"}

    def test_every_stage_is_there(self) -> None:
        text = (DEPLOY / "Dockerfile").read_text()
        stages = set(re.findall(r"^FROM .* AS ([\w-]+)$", text, re.MULTILINE))
        assert {"cpu", "gpu", *(f"assets-{service}" for service in SERVICES)} <= stages
        assert set(re.findall(r"COPY --from=([\w-]+)", text)) <= stages

    def test_what_is_copied_is_in_the_context(self) -> None:
        for source in re.findall(r"^COPY (?!--from)(\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE):
            assert (ROOT / source).exists(), source

    def test_minio_is_the_version_that_is_tested(self) -> None:
        assert f"ARG MINIO_VERSION={minio_server.MINIO}\n" in (DEPLOY / "minio" / "Dockerfile").read_text()

    def test_ports_of_the_health_check_are_the_services_own(self) -> None:
        assert {service: ports.http for service, ports in DEFAULT_PORTS.items()} == HTTP_PORTS


class TestAlerts:
    def test_prometheus_and_alertmanager_accept_their_files(self, tmp_path: Path) -> None:
        config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        here = tmp_path / "prometheus.yml"
        token = tmp_path / "token"
        token.write_text("what Prometheus shows to see counts by watchlist")
        config = config.replace("/config/metrics/token", str(token))
        here.write_text(config.replace("/etc/prometheus", str(DEPLOY / "prometheus")))
        run([tool("promtool"), "check", "config", here], "promtool check config", timeout_s=300)
        run([tool("amtool"), "check-config", DEPLOY / "alertmanager" / "alertmanager.yml"], "amtool", timeout_s=300)

    @pytest.mark.parametrize("file", ["tests.yml", "tests-platform.yml"])
    def test_rules_fire_when_they_should_and_only_then(self, file: str) -> None:
        run(
            [tool("promtool"), "test", "rules", DEPLOY / "prometheus" / file],
            "promtool test rules",
            timeout_s=300,
        )

    def test_every_alert_is_seen_to_fire(self) -> None:
        files = [yaml.safe_load(path.read_text()) for path in (DEPLOY / "prometheus").glob("tests*.yml")]
        fired = {
            each["alertname"]
            for file in files
            for test in file["tests"]
            for each in test["alert_rule_test"]
            if each["exp_alerts"]
        }
        assert {alert["alert"] for alert in alerts()} - fired == set()

    def test_rules_and_dashboards_name_metrics_that_exist(self) -> None:
        known = {
            sample.name for family in Metrics(CollectorRegistry()).registry.collect() for sample in family.samples
        } | {family.name for family in Metrics(CollectorRegistry()).registry.collect()}
        bare = {re.sub(r"_(total|created)$", "", name) for name in known}
        texts = [
            *(path.read_text() for path in (DEPLOY / "prometheus" / "rules").glob("*.yml")),
            *(path.read_text() for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")),
        ]
        named = {name for text in texts for name in re.findall(r"\blikeness_[a-z_]+", text)}
        assert len(named) > 15
        assert {name for name in named if re.sub(r"_(total|bucket|count|sum)$", "", name) not in bare} == set()

    def test_every_alert_says_what_to_do(self) -> None:
        runbook = (ROOT / "docs" / "operations" / "alerts.md").read_text()
        headings = {line[3:].strip().lower() for line in runbook.splitlines() if line.startswith("## ")}
        for alert in alerts():
            file, _, anchor = alert["annotations"]["runbook"].partition("#")
            assert file == "docs/operations/alerts.md"
            assert anchor == alert["alert"].lower()
            assert anchor in headings
            assert alert["labels"]["severity"] in {"page", "warn"}

    def test_dashboards_are_what_the_code_makes(self) -> None:
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / "build_dashboards.py", "--check"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def alerts() -> Iterator[Document]:
    for path in (DEPLOY / "prometheus" / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from (rule for rule in group["rules"] if "alert" in rule)


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests of one overlay, as one file."""
    built = tmp_path_factory.mktemp("overlay") / f"{request.param}.yaml"
    path = K8S / "overlays" / request.param
    built.write_text(run([validator("kubectl"), "kustomize", path], f"kustomize {request.param}", timeout_s=300))
    return built


def documents(overlay: Path, *kinds: str) -> list[Document]:
    return [each for each in yaml.safe_load_all(overlay.read_text()) if each["kind"] in kinds]


def pods(overlay: Path) -> Iterator[tuple[str, Document]]:
    for each in documents(overlay, "Deployment", "StatefulSet"):
        yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def containers(overlay: Path) -> Iterator[tuple[str, Document]]:
    for name, pod in pods(overlay):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield name, container


class TestKubernetes:
    def test_it_is_valid_against_the_schemas(self, overlay: Path) -> None:
        run([validator("kubernetes-validate"), "--strict", overlay], "kubernetes-validate", timeout_s=120)

    def test_images_are_pinned_and_nobody_is_root(self, overlay: Path) -> None:
        for name, container in containers(overlay):
            assert _PINNED.fullmatch(container["image"]), name
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], name
            assert container["resources"]["limits"]["memory"], name
            if name in SERVICES:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        for name, pod in pods(overlay):
            assert pod["securityContext"]["runAsNonRoot"] is True, name
            assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
            assert pod["automountServiceAccountToken"] is False, name

    def test_every_variable_is_a_setting_and_secrets_are_references(self, overlay: Path) -> None:
        for name, container in containers(overlay):
            for variable in container.get("env") or ():
                if variable["name"].startswith("LIKENESS_"):
                    assert is_setting(variable["name"]), variable["name"]
                if re.search(r"PASSWORD|SECRET_KEY|ACCESS_KEY|TOKEN$|DATABASE__URL", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], (name, variable["name"])
        assert documents(overlay, "Secret") == []

    def test_probes_ask_what_the_service_says(self, overlay: Path) -> None:
        ready = {
            name: container["readinessProbe"]["httpGet"]
            for name, container in containers(overlay)
            if name in SERVICES and "readinessProbe" in container
        }
        # Over HTTP: the kubelet has no certificate with which it could ask over gRPC.
        assert ready == {name: {"path": "/readyz", "port": "http"} for name in SERVICES}

    def test_embed_may_have_what_its_workers_may_take(self, overlay: Path) -> None:
        """Each of them at its own limit at once, or the kernel would end one that kept to it."""
        defaults, gib = EmbedSettings(), 1024**3
        gate, film = defaults.gate, defaults.film
        arena_bytes = gate.max_bytes + 3 * gate.max_pixels  # shared memory: one is within a worker's own limit
        found = [each for name, each in containers(overlay) if name == "embed"]
        for container in found:
            told = {each["name"].removeprefix("LIKENESS_EMBED__"): each.get("value") for each in container["env"]}
            decoders, networks = int(told["GATE__WORKERS"]), int(told["INFERENCE__WORKERS"])
            further = (gate.arenas // gate.workers - 1) * arena_bytes
            takes = decoders * (gate.memory_bytes + further) + film.max_running * film.memory_bytes
            limit = re.fullmatch(r"(\d+)Gi", container["resources"]["limits"]["memory"])
            # 0.3 GiB a network on a CPU (all of embed has 0.64 GB there), more than a GiB beside a GPU.
            takes += networks * (2 * gib if "nvidia.com/gpu" in container["resources"]["limits"] else gib // 2)
            assert limit
            assert int(limit[1]) * gib >= takes, f"{takes / gib:.1f} GiB"
        assert found

    def test_prometheus_finds_the_pods_of_every_service_and_no_others(self, overlay: Path) -> None:
        """By what the scrape configuration keeps; labels of the deployment itself it does not see."""
        [scrape] = yaml.safe_load((K8S / "monitoring" / "scrape.yml").read_text())["scrape_configs"]
        keeps = {
            each["source_labels"][0]: each["regex"]
            for each in scrape["relabel_configs"]
            if each.get("action") == "keep"
        }
        part_of = keeps.pop("__meta_kubernetes_pod_label_app_kubernetes_io_part_of")
        port = keeps.pop("__meta_kubernetes_pod_container_port_name")
        assert keeps == {}
        found = {
            each["metadata"]["name"]
            for each in documents(overlay, "Deployment", "StatefulSet")
            if each["spec"]["template"]["metadata"]["labels"].get("app.kubernetes.io/part-of") == part_of
            for container in each["spec"]["template"]["spec"]["containers"]
            if port in {given["name"] for given in container.get("ports", ())}
        }
        assert found == set(SERVICES)

    def test_every_service_has_a_certificate_of_its_own_and_no_other(self, overlay: Path) -> None:
        for name, pod in pods(overlay):
            mounted = [each["secret"]["secretName"] for each in pod.get("volumes", ()) if each.get("name") == "tls"]
            assert mounted == ([f"likeness-tls-{name}"] if name in SERVICES else []), name
        for name, container in containers(overlay):
            given = {each["name"]: each.get("value") for each in container.get("env") or ()}
            paths = {key.rpartition("__")[2]: value for key, value in given.items() if "__TLS__" in key}
            if name in SERVICES and "readinessProbe" in container:
                files = {"CA_PATH": "ca.crt", "CERT_PATH": "tls.crt", "KEY_PATH": "tls.key"}
                # A further authority, while one follows another, is believed by all or the services fall apart.
                beside = {"MORE_CA_PATH": "/config/authorities/ca.crt"}
                assert paths == {**{key: f"/config/tls/{file}" for key, file in files.items()}, **beside}, name
                assert any(each["mountPath"] == "/config/tls" for each in container["volumeMounts"]), name

    def test_every_configuration_that_is_named_is_there(self, overlay: Path) -> None:
        there = {each["metadata"]["name"] for each in documents(overlay, "ConfigMap")}
        named = {
            variable["valueFrom"]["configMapKeyRef"]["name"]
            for _, container in containers(overlay)
            for variable in container.get("env") or ()
            if "configMapKeyRef" in variable.get("valueFrom", {})
            and not variable["valueFrom"]["configMapKeyRef"].get("optional")
        }
        assert named
        assert named <= there

    def test_only_the_pairs_of_the_architecture_may_talk(self, overlay: Path) -> None:
        assert set(allowed_pairs(documents(overlay, "NetworkPolicy"))) == {
            ("search", "embed", 50062),
            ("ingest", "embed", 50062),
            ("ingest", "search", 50063),
            ("review", "search", 50063),
            ("review", "embed", 50062),
            ("review", "ingest", 50061),
            # When a subject was released as a potential name, for that subject's access package.
            ("ingest", "review", 50065),
            ("search", "ingest", 50061),
            ("search", "audit", 50064),
            ("ingest", "audit", 50064),
            ("review", "audit", 50064),
            # The console reads REST of others with the token of whoever looks.
            ("review", "search", 8080),
            ("review", "ingest", 8081),
            ("review", "audit", 8082),
        }

    def test_everything_else_is_denied(self, overlay: Path) -> None:
        [deny] = [each for each in documents(overlay, "NetworkPolicy") if each["metadata"]["name"] == "deny-all"]
        assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    @pytest.mark.parametrize(
        ("copy", "original"),
        [
            (K8S / "base" / "watchlists.toml", ROOT / "services" / "shared" / "watchlists.toml"),
            (K8S / "components" / "postgres" / "10-databases.sh", DEPLOY / "postgres" / "10-databases.sh"),
            (K8S / "components" / "milvus" / "user.yaml", DEPLOY / "milvus" / "user.yaml"),
        ],
    )
    def test_copies_are_equal(self, copy: Path, original: Path) -> None:
        """kustomize reads nothing outside its folder."""
        assert copy.read_text() == original.read_text()


class TestCertificates:
    def test_each_names_its_service_and_fits_the_secret_that_is_mounted(self) -> None:
        built = run([validator("kubectl"), "kustomize", K8S / "certificates"], "kustomize certificates", timeout_s=300)
        found = [each for each in yaml.safe_load_all(built) if each["kind"] == "Certificate"]
        leaves = {each["metadata"]["name"]: each["spec"] for each in found if not each["spec"].get("isCA")}
        assert set(leaves) == set(SERVICES)
        for name, spec in leaves.items():
            assert spec["dnsNames"] == [host_name(name)]
            assert spec["secretName"] == f"likeness-tls-{name}"
            assert {"server auth", "client auth"} <= set(spec["usages"])
            assert spec["privateKey"]["rotationPolicy"] == "Always"
            assert (spec["duration"], spec["renewBefore"]) == ("24h", "12h")


def allowed_pairs(policies: list[Document]) -> Iterator[tuple[str, str, int]]:
    """(caller, callee, port) between the services that both an egress and an ingress rule allow."""
    ingress = set(_rules(policies, "ingress", "from"))
    egress = {(caller, callee, port) for callee, caller, port in _rules(policies, "egress", "to")}
    yield from ingress & egress


def _rules(policies: list[Document], direction: str, side: str) -> Iterator[tuple[str, str, int]]:
    for policy in policies:
        for rule in policy["spec"].get(direction, ()):
            for peer in rule.get(side, ()):
                for other in _names(peer.get("podSelector")):
                    for own in _names(policy["spec"]["podSelector"]):
                        for port in rule.get("ports", ()):
                            if {own, other} <= {*SERVICES, "embed-candidate"}:
                                yield other, own, port["port"]


def _names(selector: Document | None) -> list[str]:
    if selector is None:
        return []
    label = "app.kubernetes.io/name"
    listed = [each["values"] for each in selector.get("matchExpressions", ()) if each["key"] == label]
    single = selector.get("matchLabels", {}).get(label)
    return [*(name for values in listed for name in values), *([single] if single else [])]
