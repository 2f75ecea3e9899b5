"""What the documentation names exists: commands, make targets, files, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.cli import PARTS
from tests.support.repository import ROOT, committed_files

_COMMAND = re.compile(r"(?:^|[`$(])\s*(?:\.venv/bin/)?likeness ([a-z]+)", re.MULTILINE)
_TARGET = re.compile(r"(?:^|[`$])\s*make ([a-z-]+)", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
# A path in backticks that begins with one of our folders and has no placeholder in it.
_PATH = re.compile(r"`((?:services|tests|docs|proto|deploy|k8s|scripts|requirements)/[\w./-]*)`")


def _documents() -> list[Path]:
    return [path for path in committed_files() if path.suffix == ".md"]


@pytest.fixture(scope="module", params=_documents(), ids=lambda path: str(path.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_commands_exist(document: Path) -> None:
    assert set(_COMMAND.findall(document.read_text())) <= set(PARTS)


def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(_TARGET.findall(document.read_text())) <= targets


def test_links_and_paths_exist(document: Path) -> None:
    text = document.read_text()
    missing = [link for link in _LINK.findall(text) if not (document.parent / link).exists()]
    missing += [path for path in _PATH.findall(text) if not (ROOT / path).exists()]
    assert not missing
