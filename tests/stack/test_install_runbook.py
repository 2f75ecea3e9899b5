"""docs/operations/install.md makes the secrets that the manifests ask for: its commands are run against no cluster."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.stack.servers.tools import validator

ROOT = Path(__file__).parent.parent.parent
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Every command says what it would make instead of making it.
_KUBECTL = 'kubectl() {{ "{path}" "$@" --dry-run=client -o yaml; echo "---"; }}\n'
# What cert-manager makes.
_CERTIFICATES = re.compile(r"likeness-tls-\w+|likeness-authority")


def _made(folder: Path) -> dict[str, set[str]]:
    """The keys of each secret by its name, after the runbook's block."""
    [block] = _BLOCK.findall((ROOT / "docs" / "operations" / "install.md").read_text("utf-8"))
    (folder / "jwks.json").write_text("{}")
    (folder / "revocations.json").write_text('{"tokens": {}, "persons": {}}')
    passwords = dict.fromkeys(re.findall(r"\$(\w+)", block), "x")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _KUBECTL.format(path=validator("kubectl")) + block],
        cwd=folder,
        env={**os.environ, **passwords, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "Secret"]
    return {each["metadata"]["name"]: set(each["data"]) for each in found}


def _wanted() -> Iterator[tuple[str, str]]:
    for path in (ROOT / "k8s").rglob("*.yaml"):
        if path.name == "kustomization.yaml":
            continue
        for document in yaml.safe_load_all(path.read_text("utf-8")):
            yield from _references(document)


def _references(node: Any) -> Iterator[tuple[str, str]]:
    """(secret, key) of every reference, with an empty key where a whole secret is mounted."""
    if isinstance(node, list):
        for each in node:
            yield from _references(each)
    if isinstance(node, dict):
        reference = node.get("secretKeyRef")
        if reference:
            yield reference["name"], reference["key"]
        if "secret" in node and isinstance(node["secret"], dict):
            yield node["secret"]["secretName"], ""
        for each in node.values():
            yield from _references(each)


def test_every_secret_that_is_asked_for_is_made_and_no_other(tmp_path: Path) -> None:
    made = _made(tmp_path)
    wanted = {(name, key) for name, key in _wanted() if not _CERTIFICATES.fullmatch(name)}
    assert {name for name, _ in wanted} == set(made)
    assert [(name, key) for name, key in sorted(wanted) if key and key not in made[name]] == []
    # Mounted as files: these are the names that the settings have.
    assert made["likeness-tokens"] == {"jwks.json", "revocations.json"}
    assert made["likeness-erasure"] == {"certificate-key.pem"}
    assert made["likeness-metrics"] == {"token"}
    unused = {(name, key) for name, keys in made.items() for key in keys} - wanted
    mounted = {name for name, key in wanted if not key}
    assert {name for name, _ in unused} <= mounted
