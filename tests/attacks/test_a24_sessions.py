"""A24: sessions of the console, attacked over plain HTTP. Idleness and age are held by tests/unit/review/console."""

from __future__ import annotations

import httpx
import pytest

from services.local.issuer import LocalIssuer
from services.shared.clock import SystemClock
from tests.attacks.visitor import Visitor
from tests.support.platform import Platform
from tests.support.waiting import wait_until


@pytest.fixture
def visitor(platform: Platform) -> Visitor:
    return Visitor(platform)


def test_a24_a_cookie_set_beforehand_opens_nothing(visitor: Visitor, platform: Platform) -> None:
    visitor.cookie = "fixed-by-an-attacker"
    assert visitor.get().status_code == 303
    assert visitor.sign_in(platform.token("operator", person_id="a24-fixed")).status_code == 303
    assert visitor.cookie != "fixed-by-an-attacker"
    attacker = Visitor(platform)
    attacker.cookie = "fixed-by-an-attacker"
    assert attacker.get().status_code == 303


def test_a24_signing_out_kills_the_cookie_on_the_server(visitor: Visitor, platform: Platform) -> None:
    visitor.sign_in(platform.token("operator", person_id="a24-out"))
    assert visitor.get().status_code == 200
    assert visitor.post("/console/sign-out", csrf=visitor.csrf()).status_code == 303
    assert visitor.get().status_code == 303


def test_a24_what_a_new_token_no_longer_permits_ends_in_old_windows_too(platform: Platform) -> None:
    old, new = Visitor(platform), Visitor(platform)
    old.sign_in(platform.token("supervisor", person_id="a24-demoted"))
    assert old.get("/console/unit").status_code == 200
    new.sign_in(platform.token("operator", person_id="a24-demoted"))
    assert old.get("/console/unit").status_code == 303
    assert new.get("/console/unit").status_code == 403


def test_a24_a_revoked_person_is_out_within_the_minute(platform: Platform) -> None:
    visitor, colleague = Visitor(platform), Visitor(platform)
    visitor.sign_in(platform.token("operator", person_id="a24-dismissed"))
    colleague.sign_in(platform.token("operator", person_id="a24-colleague"))
    assert visitor.get().status_code == colleague.get().status_code == 200
    LocalIssuer.open(platform.data.tokens, SystemClock()).revoke_person("a24-dismissed")
    wait_until(lambda: visitor.get().status_code == 303, 60, "the session of who was dismissed to end")
    assert visitor.get("/console/guide").status_code == 303
    assert colleague.get().status_code == 200


def test_a24_five_bad_sign_ins_lock_and_say_nothing_of_the_token(platform: Platform) -> None:
    visitor = Visitor(platform)
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


def test_a24_nobody_chooses_the_address_that_is_counted(visitor: Visitor, platform: Platform) -> None:
    """With a header that any browser can send, bad sign-ins would be another address's each time."""
    chosen = "198.51.100.24"
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        visitor.client.headers[name] = f"for={chosen}" if name == "Forwarded" else chosen
    assert visitor.sign_in(platform.token("operator", person_id="a24-chosen")).status_code == 303
    page = visitor.get("/console/sessions").text
    assert "127.0.0.1" in page
    assert chosen not in page
