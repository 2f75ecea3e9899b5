"""The optional virus scanner, as compose and a cluster are told of it; validated by their own tools, not run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.stack.overlays import built_with
from tests.stack.servers.base import run
from tests.stack.servers.tools import validator
from tests.stack.test_deploy import _PINNED, DEPLOY, ROOT, Document, is_setting

ADDRESS = "clamav:3310"
DOORS = ("search", "ingest", "review")


def test_compose_takes_it_as_a_second_file(tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder, ignore=shutil.ignore_patterns("local", ".env"))
    run([sys.executable, ROOT / "scripts" / "stack_secrets.py", folder], "stack_secrets.py", cwd=ROOT, timeout_s=300)
    shown = subprocess.run(
        [validator("docker-compose"), "-f", folder / "compose.yaml", "-f", folder / "compose.clamav.yaml", "config"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "CLAMAV_SIGNATURES": str(tmp_path)},
    )
    assert shown.returncode == 0, shown.stderr
    services: Document = yaml.safe_load(shown.stdout)["services"]
    for name in DOORS:
        variable = f"LIKENESS_{name.upper()}__SCANNER__ADDRESS"
        assert is_setting(variable)
        assert services[name]["environment"][variable] == ADDRESS
        assert len(services[name]["environment"]) > 5, "what it was told before stands"
    clamav = services["clamav"]
    assert _PINNED.fullmatch(clamav["image"])
    assert (clamav["cap_drop"], list(clamav["networks"])) == (["ALL"], ["engines"])
    assert "ports" not in clamav


def test_a_cluster_takes_it_as_a_component(tmp_path: Path) -> None:
    documents = built_with("clamav", tmp_path)
    deployments = {each["metadata"]["name"]: each for each in documents if each["kind"] == "Deployment"}
    for name in DOORS:
        [container] = deployments[name]["spec"]["template"]["spec"]["containers"]
        assert {"name": f"LIKENESS_{name.upper()}__SCANNER__ADDRESS", "value": ADDRESS} in container["env"]
    pod = deployments["clamav"]["spec"]["template"]["spec"]
    [clamd] = pod["containers"]
    assert _PINNED.fullmatch(clamd["image"])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert clamd["securityContext"]["capabilities"]["drop"] == ["ALL"]
    policies = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "NetworkPolicy"}
    [callers] = policies["clamav-callers"]["ingress"]
    assert sorted(callers["from"][0]["podSelector"]["matchExpressions"][0]["values"]) == sorted(DOORS)
    assert "Egress" not in policies["clamav-callers"]["policyTypes"], "deny-all is what it may call"
