"""Pictures that wait, or were left behind, keep nobody from a page."""

from __future__ import annotations

from threading import Event, Lock
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

from services.review.casework.caller import Caller
from services.review.casework.probes import Picture
from services.review.console.turns import PICTURES_AT_ONCE
from services.shared.errors import AuditUnavailable, DependencyUnavailable, LikenessError, Overloaded
from tests.unit.review.console.browser import ORIGIN, Browser
from tests.unit.review.console.fake_desk import PROBE_ID, REQUEST_ID, FakeDesk

PICTURE = f"/console/requests/{REQUEST_ID}/probes/{PROBE_ID}/original.jpg?size=small"
ASKED = 60  # more than all threads of a service


class SlowDesk(FakeDesk):
    """Its pictures come when the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Event()
        self.begun = 0
        self.lock = Lock()

    @property
    def pictures(self) -> Any:
        ready: Any = super().pictures

        def probe(caller: Caller, *what: str) -> Picture:
            with self.lock:
                self.begun += 1
            assert self.gate.wait(60), "the gate never opened"
            made: Picture = ready.probe(caller, *what)
            return made

        return SimpleNamespace(probe=probe)


@pytest.fixture
def desk() -> SlowDesk:
    return SlowDesk()


def _client(browser: Browser) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(browser.app),
        base_url=ORIGIN,
        cookies=dict(browser.client.cookies),
        timeout=60,
        headers={"Accept": "text/html"},
    )


def test_a_page_comes_while_more_pictures_wait_than_there_are_threads(desk: SlowDesk) -> None:
    browser = Browser(desk)
    browser.sign_in()

    async def visit() -> list[int]:
        statuses: list[int] = []

        async def picture(client: httpx.AsyncClient) -> None:
            statuses.append((await client.get(PICTURE)).status_code)

        async with _client(browser) as client, anyio.create_task_group() as group:
            for _ in range(ASKED):
                group.start_soon(picture, client)
            with anyio.fail_after(60):
                while desk.begun < PICTURES_AT_ONCE:  # noqa: ASYNC110 - it is a thread that counts
                    await anyio.sleep(0.01)
                page = await client.get("/console/guide")
            assert page.status_code == 200
            assert statuses == [], "the page came before the pictures"
            assert desk.begun == PICTURES_AT_ONCE
            desk.gate.set()
        return statuses

    assert anyio.run(visit) == [200] * ASKED


class BusyDesk(FakeDesk):
    """Its services are busy twice, or for ever where they are `down`."""

    def __init__(self, error: LikenessError) -> None:
        super().__init__()
        self.error = error
        self.tries = 0

    @property
    def pictures(self) -> Any:
        ready: Any = super().pictures

        def probe(caller: Caller, *what: str) -> Picture:
            self.tries += 1
            if self.tries < 3:
                raise self.error
            made: Picture = ready.probe(caller, *what)
            return made

        return SimpleNamespace(probe=probe)


@pytest.mark.parametrize("error", [Overloaded("Too many."), DependencyUnavailable("Away.")])
def test_a_picture_is_tried_again_while_somebody_is_busy(error: LikenessError) -> None:
    desk = BusyDesk(error)
    browser = Browser(desk)
    browser.sign_in()
    assert browser.get(PICTURE).status_code == 200
    assert desk.tries == 3


def test_a_picture_that_cannot_be_recorded_is_not_tried_again() -> None:
    desk = BusyDesk(AuditUnavailable("The log is away."))
    browser = Browser(desk)
    browser.sign_in()
    assert browser.get(PICTURE).status_code == 503
    assert desk.tries == 1
