"""A second embed for a model migration, as compose and a cluster are told of it; validated by their own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.stack.servers.base import run
from tests.stack.servers.tools import validator
from tests.stack.test_deploy import DEPLOY, K8S, ROOT, Document, allowed_pairs, is_setting

ADDRESS = "embed-candidate:50062"


def test_compose_takes_a_second_embed_beside_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("local", ".env"))
    run([sys.executable, ROOT / "scripts" / "stack_secrets.py", folder], "stack_secrets.py", cwd=ROOT, timeout_s=300)
    files: list[str | Path] = ["-f", folder / "compose.yaml", "-f", folder / "compose.candidate.yaml"]
    candidate = {
        "CANDIDATE_MODELS": str(tmp_path),
        "CANDIDATE_DETECTOR": "yunet",
        "CANDIDATE_RECOGNISER": "arcface-r50",
    }
    shown = subprocess.run(
        [validator("docker-compose"), *files, "config"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **candidate},
    )
    assert shown.returncode == 0, shown.stderr
    services: Document = yaml.safe_load(shown.stdout)["services"]
    for name in ("search", "ingest"):
        assert services[name]["environment"][f"LIKENESS_{name.upper()}__CANDIDATE_EMBED"] == ADDRESS
    first, second = services["embed"], services["embed-candidate"]
    assert second["environment"]["LIKENESS_EMBED__MODEL__RECOGNISER"] == "arcface-r50"
    assert all(is_setting(variable) for variable in second["environment"] if variable.startswith("LIKENESS_"))
    assert "LIKENESS_EMBED__MODEL__RECOGNISER" not in first["environment"]
    for kept in ("read_only", "user", "cap_drop", "security_opt", "networks", "image", "healthcheck"):
        assert second[kept] == first[kept], kept
    assert second["depends_on"]["certificates"]["condition"] == "service_healthy"


def test_a_cluster_takes_it_as_a_component(tmp_path: Path) -> None:
    tree = tmp_path / "k8s"
    shutil.copytree(K8S, tree)
    overlay = tree / "overlays" / "moving"
    overlay.mkdir()
    told = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "likeness",
        "resources": ["../dev"],
        "components": ["../../components/candidate"],
        "configMapGenerator": [
            {"name": "likeness-candidate", "literals": ["detector=yunet", "recogniser=arcface-r50"]}
        ],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(told))
    built = tmp_path / "built.yaml"
    built.write_text(run([validator("kubectl"), "kustomize", overlay], "kustomize", timeout_s=300))
    run([validator("kubernetes-validate"), "--strict", built], "kubernetes-validate", timeout_s=300)
    documents = list(yaml.safe_load_all(built.read_text()))
    deployments = {each["metadata"]["name"]: each for each in documents if each["kind"] == "Deployment"}
    for name in ("search", "ingest"):
        [container] = deployments[name]["spec"]["template"]["spec"]["containers"]
        assert {"name": f"LIKENESS_{name.upper()}__CANDIDATE_EMBED", "value": ADDRESS} in container["env"]
        assert len(container["env"]) > 10, "what it was told before stands"
    pairs = set(allowed_pairs([each for each in documents if each["kind"] == "NetworkPolicy"]))
    assert {pair for pair in pairs if pair[1] == "embed-candidate"} == {
        ("search", "embed-candidate", 50062),
        ("ingest", "embed-candidate", 50062),
    }
    [service] = [each for each in documents if each["kind"] == "Service" and each["metadata"]["name"] == "embed"]
    assert service["spec"]["selector"] == {"app.kubernetes.io/name": "embed"}, "nobody is sent to the other model"
    _differs_in_its_model_alone(deployments)


def _differs_in_its_model_alone(deployments: Document) -> None:
    """Whoever changes one embed changes the other."""
    first, second = (deployments[name]["spec"]["template"]["spec"] for name in ("embed", "embed-candidate"))
    [one], [other] = first.pop("containers"), second.pop("containers")
    given = [each for each in other.pop("env") if "__MODEL__" not in each["name"]]
    assert given == one.pop("env")
    assert all(is_setting(each["name"]) for each in given if each["name"].startswith("LIKENESS_"))
    assert [each for each in other.pop("volumeMounts") if each["name"] != "models"] == one.pop("volumeMounts")
    assert other == one
    assert [each for each in second.pop("volumes") if each["name"] != "models"] == first.pop("volumes")
    for spec in (first, second):
        spec.pop("topologySpreadConstraints")
    assert second == first
