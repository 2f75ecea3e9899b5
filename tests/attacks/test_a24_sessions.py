"""A24: sessions of the console, attacked over plain HTTP. Idleness and age are held by tests/unit/review/console."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.support.platform import Platform

COOKIE = "__Host-likeness"


class _Visitor:
    """A browser of our own: it keeps the cookie that it is told to keep."""

    def __init__(self, platform: Platform) -> None:
        base = platform.url("review")
        self.client = httpx.Client(base_url=base, headers={"Origin": base, "Accept": "text/html"}, trust_env=False)
        self.cookie = ""

    def sign_in(self, token: str) -> httpx.Response:
        answer = self.client.post("/console/sign-in", data={"token": token}, headers=self._cookies())
        found = re.search(rf"{COOKIE}=([^;]+)", answer.headers.get("set-cookie", ""))
        self.cookie = found.group(1) if found else self.cookie
        return answer

    def get(self, path: str = "/console/queue") -> httpx.Response:
        return self.client.get(path, headers=self._cookies())

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', self.get("/console/guide").text)
        assert found is not None
        return found.group(1)

    def post(self, path: str, **form: str) -> httpx.Response:
        return self.client.post(path, data=form, headers=self._cookies())

    def _cookies(self) -> dict[str, str]:
        return {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}


@pytest.fixture
def visitor(platform: Platform) -> _Visitor:
    return _Visitor(platform)


def test_a24_a_cookie_set_beforehand_opens_nothing(visitor: _Visitor, platform: Platform) -> None:
    visitor.cookie = "fixed-by-an-attacker"
    assert visitor.get().status_code == 303
    assert visitor.sign_in(platform.token("operator", person_id="a24-fixed")).status_code == 303
    assert visitor.cookie != "fixed-by-an-attacker"
    attacker = _Visitor(platform)
    attacker.cookie = "fixed-by-an-attacker"
    assert attacker.get().status_code == 303


def test_a24_signing_out_kills_the_cookie_on_the_server(visitor: _Visitor, platform: Platform) -> None:
    visitor.sign_in(platform.token("operator", person_id="a24-out"))
    assert visitor.get().status_code == 200
    assert visitor.post("/console/sign-out", csrf=visitor.csrf()).status_code == 303
    assert visitor.get().status_code == 303


def test_a24_what_a_new_token_no_longer_permits_ends_in_old_windows_too(platform: Platform) -> None:
    old, new = _Visitor(platform), _Visitor(platform)
    old.sign_in(platform.token("supervisor", person_id="a24-demoted"))
    assert old.get("/console/unit").status_code == 200
    new.sign_in(platform.token("operator", person_id="a24-demoted"))
    assert old.get("/console/unit").status_code == 303
    assert new.get("/console/unit").status_code == 403


def test_a24_five_bad_sign_ins_lock_and_say_nothing_of_the_token(platform: Platform) -> None:
    visitor = _Visitor(platform)
    # From an address of its own, so that no other test is locked out.
    visitor.client = httpx.Client(
        base_url=platform.url("review"),
        headers={"Origin": platform.url("review")},
        transport=httpx.HTTPTransport(local_address="127.0.0.24"),
        trust_env=False,
    )
    for _ in range(5):
        answer = visitor.sign_in("not.a.token")
        assert answer.status_code == 401
        assert "signature" not in answer.text
    assert visitor.sign_in(platform.token("operator", person_id="a24-locked")).status_code == 429
