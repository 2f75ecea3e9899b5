"""Milvus Lite from its PyPI wheel, in a folder of its own: what it needs beside itself the project has already."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.stack.servers.base import install_once, run

VERSION = "3.2.2"
_REQUIREMENTS = Path(__file__).parent / "milvus-lite-requirements.txt"


def _install(folder: Path) -> None:
    run([sys.executable, "-m", "venv", folder / "venv"], "an environment to install Milvus Lite with")
    pip = (folder / "venv" / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(
        [*pip, "--no-deps", "--require-hashes", "--target", folder / "package", "-r", _REQUIREMENTS],
        "Milvus Lite from PyPI",
    )


def milvus_lite() -> Path:
    """The folder that has to be on the path for pymilvus to open a file."""
    return install_once("milvus-lite", VERSION, _install) / "package"
