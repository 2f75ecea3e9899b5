"""Every command block of the README, run in order as a newcomer would, in an empty folder and on free ports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from services.audit.settings import AuditSettings
from services.embed.settings import EmbedSettings
from services.ingest.settings import IngestSettings
from services.local.deployment import DEFAULT_PORTS, HOST, free_ports
from services.search.settings import SearchSettings
from tests.support.repository import ROOT

README = ROOT / "README.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SETTINGS: dict[str, type[BaseModel]] = {
    "INGEST": IngestSettings,
    "SEARCH": SearchSettings,
    "AUDIT": AuditSettings,
    "EMBED": EmbedSettings,
}


def _blocks(language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(README.read_text("utf-8")) if found == language]


class Newcomer:
    """A shell in an empty folder. What differs from the README is said here and nowhere else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = free_ports()
        listed = ",".join(
            f"{service}.{side}={port}"
            for service, pair in ports.items()
            for side, port in (("http", pair.http), ("grpc", pair.grpc))
        )
        self._substitutions = {
            # What the make target does, on data in this folder.
            "make demo": "likeness demo",
            "source .venv/bin/activate": f"export PATH={Path(sys.executable).parent}:$PATH",
            "likeness up ": f"likeness up --ports {listed} ",
            **{f"{HOST}:{DEFAULT_PORTS[service].http}": f"{HOST}:{pair.http}" for service, pair in ports.items()},
        }
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LIKENESS_INGEST_URL": f"http://{HOST}:{ports['ingest'].http}",
            "LIKENESS_SEARCH_URL": f"http://{HOST}:{ports['search'].http}",
        }

    def run(self, block: str) -> str:
        """Run a block to its end; its output. Fails on the first command that fails."""
        for written, meant in self._substitutions.items():
            block = block.replace(written, meant)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    if shutil.which("curl") is None:
        pytest.skip("the README's blocks call curl, which this machine lacks")
    person = Newcomer(tmp_path_factory.mktemp("readme"))
    yield person
    person.run("likeness down --data demo-data")


@pytest.mark.timeout(1200)
def test_the_commands_do_what_the_readme_says(newcomer: Newcomer) -> None:
    said = [newcomer.run(block) for block in _blocks("bash")]
    whole = "\n".join(said)
    assert "searches over 107,500 references" in said[0]
    assert (newcomer.folder / "demo-data" / "contact-sheet.html").is_file()
    assert (newcomer.folder / "demo-data" / "contact-sheet.png").is_file()
    first = next(json.loads(output) for output in said if output.startswith('{"search_id"'))
    assert first["candidates"][0]["subject_id"] == "DEMO-0001"
    example = json.loads(_blocks("json")[0])
    assert set(example) <= set(first), "the README's example has fields that answers lack"
    assert set(example["faces"][0]) <= set(first["faces"][0])
    assert set(example["candidates"][0]) == set(first["candidates"][0]) - {"reference_id"}
    assert "NS-1001" in whole, "the person enrolled above was not found again"
    assert "Stopped." in said[-1]


def test_make_demo_is_what_is_run_above() -> None:
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert recipe.group(1).split() == ["likeness", "demo"]


def _set_variables() -> list[tuple[str, str]]:
    lines = [line for block in _blocks("env") for line in block.splitlines() if line]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@pytest.mark.parametrize(("name", "value"), _set_variables(), ids=[name for name, _ in _set_variables()])
def test_every_variable_is_a_setting_and_takes_that_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    prefix, *path = name.split("__")
    settings_class = SETTINGS[prefix.removeprefix("LIKENESS_")]
    monkeypatch.setenv(name, value)
    found: object = settings_class()
    for part in path:
        assert part.lower() in type(found).model_fields, f"{name}: there is no setting {part}"  # type: ignore[attr-defined]
        found = getattr(found, part.lower())
    shown = json.loads(value) if isinstance(found, tuple | bool) else value
    assert str(list(found) if isinstance(found, tuple) else found) == str(shown)
