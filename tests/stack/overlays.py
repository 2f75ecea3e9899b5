"""Overlays of k8s/ as an administrator writes them: one that is there, and a component more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.stack.servers.base import run
from tests.stack.servers.tools import validator
from tests.support.repository import ROOT


def built_with(component: str, folder: Path, **more: Any) -> list[dict[str, Any]]:
    """The manifests of overlays/dev with a component, valid against the API's schemas. `more`: what else the
    kustomization says."""
    tree = folder / "k8s"
    shutil.copytree(ROOT / "k8s", tree)
    overlay = tree / "overlays" / "with-component"
    overlay.mkdir()
    told = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "likeness",
        "resources": ["../dev"],
        "components": [f"../../components/{component}"],
        **more,
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(told))
    built = folder / "built.yaml"
    built.write_text(run([validator("kubectl"), "kustomize", overlay], "kustomize", timeout_s=300))
    run([validator("kubernetes-validate"), "--strict", built], "kubernetes-validate", timeout_s=300)
    return list(yaml.safe_load_all(built.read_text()))
