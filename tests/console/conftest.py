"""A real Chromium and a real platform for the console's tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance
from playwright.sync_api import Browser, sync_playwright

from tests.console.stage import Person
from tests.stack.servers.base import program
from tests.support.casework import enrol
from tests.support.faces import Still, development_faces
from tests.support.platform import Platform

SUBJECTS = 4
LAUNCH_MS = 180_000
SETTINGS: Mapping[str, str] = {"LIKENESS_REVIEW__MIN_VIEW_S": "0.2", "LIKENESS_EMBED__GATE__WORKERS": "1"}
PEOPLE = {"operator-1": "operator", "operator-2": "operator", "supervisor-1": "supervisor", "officer-2217": "requester"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, installed when it is missing; it runs in this container, so without its own sandbox.

    For one module: a second playwright beside one that is still open does not start.
    """
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=LAUNCH_MS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    faces = development_faces()
    with Platform(tmp_path_factory.mktemp("console"), settings=SETTINGS) as running:
        for still, _ in faces.mated_pairs()[:SUBJECTS]:
            enrol(running, still.path, still.identity)
        _enrol_again(running, faces.mated_pairs()[0][0], tmp_path_factory.mktemp("again"))
        yield running


def _enrol_again(running: Platform, still: Still, folder: Path) -> None:
    """Two more pictures of the subject that the probe shows: three to compare it with."""
    with Image.open(still.path) as opened:
        picture = opened.convert("RGB")
    for number, brightness in enumerate((0.8, 1.2)):
        path = folder / f"{number}.png"
        ImageEnhance.Brightness(picture).enhance(brightness).save(path)
        enrol(running, path, still.identity)


@pytest.fixture(scope="session")
def probe() -> Path:
    return development_faces().mated_pairs()[0][1].path


@pytest.fixture
def people(browser: Browser, platform: Platform) -> Iterator[dict[str, Person]]:
    entered = {name: Person.enter(browser, platform, role, name) for name, role in PEOPLE.items()}
    yield entered
    for person in entered.values():
        person.context.close()
