"""The console in this process, as a browser sees it: https, cookies, an Origin on every form."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

import httpx
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry

from services.review.casework.desk import Desk
from services.review.console.app import ConsoleSettings, create_console
from services.review.console.oidc import Oidc
from services.review.console.oversight import OversightSettings
from services.review.console.session_store import Ended, StoredSession
from services.review.uploads import FilmSettings
from services.shared.errors import Unauthenticated
from services.shared.http import create_app
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal, TokenVerifier
from services.shared.watchlists import WatchlistFile
from tests.unit.review.console.fake_desk import NOW, FakeDesk

ORIGIN = "https://console.test"


@dataclass
class HandClock:
    """Time that the test moves."""

    moment: datetime = NOW
    seconds: float = 1000.0

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds
        self.moment += timedelta(seconds=seconds)


@dataclass
class KnownTokens:
    """Verifies the tokens that it is told of."""

    people: dict[str, Principal] = field(default_factory=dict)

    def verify(self, token: str) -> Principal:
        if token not in self.people:
            raise Unauthenticated("The bearer token is missing or does not verify.")
        return self.people[token]

    def add(self, token: str, *roles: str, person_id: str = "operator-1") -> None:
        self.people[token] = Principal(person_id, "northshire", frozenset(roles), frozenset({"custody"}))


class MemorySessions:
    """SessionStore of one process."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredSession] = {}
        self.ended: dict[str, tuple[Ended, datetime]] = {}

    def begin(self, session: StoredSession) -> None:
        self._keep(lambda one: one.person_id != session.person_id, Ended.ELSEWHERE)
        self.stored[session.key] = session

    def find(self, key: str) -> StoredSession | None:
        return self.stored.get(key)

    def of(self, person_id: str) -> list[StoredSession]:
        own = [one for one in self.stored.values() if one.person_id == person_id]
        return sorted(own, key=lambda one: one.seen_at, reverse=True)

    def touch(self, key: str, seen_at: datetime) -> None:
        if key in self.stored:
            self.stored[key] = replace(self.stored[key], seen_at=max(seen_at, self.stored[key].seen_at))

    def reseal(self, key: str, before: bytes, after: bytes) -> bool:
        if key not in self.stored or self.stored[key].sealed != before:
            return False
        self.stored[key] = replace(self.stored[key], sealed=after)
        return True

    def end(self, key: str, why: Ended | None = None) -> None:
        self._keep(lambda one: one.key != key, why)

    def why_ended(self, key: str) -> Ended | None:
        return self.ended[key][0] if key in self.ended else None

    def end_before(self, seen_before: datetime, started_before: datetime) -> None:
        self._keep(lambda one: one.started_at > started_before, Ended.AGE)
        self._keep(lambda one: one.seen_at > seen_before, Ended.IDLE)
        self.ended = {key: one for key, one in self.ended.items() if one[1] > started_before}

    def _keep(self, is_kept: Callable[[StoredSession], bool], why: Ended | None) -> None:
        for key, one in list(self.stored.items()):
            if not is_kept(one):
                del self.stored[key]
                if why is not None:
                    self.ended[key] = (why, one.seen_at)


# Discard: no other service is there, whatever platform runs on this machine.
_NOBODY_URL = "http://127.0.0.1:9"
NOBODY = OversightSettings(ingest_url=_NOBODY_URL, audit_url=_NOBODY_URL)


class Browser:
    """One browser at a console of its own."""

    def __init__(
        self,
        desk: FakeDesk,
        tokens: KnownTokens | None = None,
        clock: HandClock | None = None,
        *,
        verifier: TokenVerifier | None = None,
        oidc: Oidc | None = None,
        settings: ConsoleSettings | None = None,
    ) -> None:
        self.desk = desk
        self.clock = clock or HandClock()
        self.tokens = tokens or KnownTokens()
        self.tokens.add("good", "operator", "supervisor", "requester")
        app = create_app("review", Metrics(CollectorRegistry()), readiness=dict)
        self.store = MemorySessions()
        app.include_router(
            create_console(
                cast("Desk", desk),
                verifier or cast("TokenVerifier", self.tokens),
                self.clock,
                WatchlistFile(),
                settings or ConsoleSettings(token_sign_in=True, oversight=NOBODY),
                films=FilmSettings(search_url=_NOBODY_URL),
                session_store=self.store,
                oidc=oidc,
            )
        )
        self.app = app
        self.client = TestClient(app, base_url=ORIGIN, follow_redirects=False)
        self.csrf = ""

    def sign_in(self, credential: str = "good") -> httpx.Response:
        answer: httpx.Response = self.client.post(
            "/console/sign-in", data={"token": credential}, headers={"Origin": ORIGIN}
        )
        if answer.status_code == 303:
            found = re.search(r'name="csrf" value="([^"]+)"', self.get("/console/guide").text)
            assert found is not None
            self.csrf = found.group(1)
        return answer

    def get(self, path: str) -> httpx.Response:
        answer: httpx.Response = self.client.get(path, headers={"Accept": "text/html"})
        return answer

    def post(self, path: str, form: dict[str, Any] | None = None, **files: Any) -> httpx.Response:
        data = {"csrf": self.csrf, **(form or {})}
        answer: httpx.Response = self.client.post(path, data=data, headers={"Origin": ORIGIN}, files=files or None)
        return answer
