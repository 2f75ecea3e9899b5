"""Sessions end: by idleness, by age, by sign-out, by a new sign-in, and when the token no longer verifies."""

from __future__ import annotations

import pytest

from services.review.console.sessions import Session, Sessions, SessionSettings
from services.shared.errors import TooManyRequests, Unauthenticated
from tests.unit.review.console.browser import HandClock, KnownTokens

SETTINGS = SessionSettings()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def tokens() -> KnownTokens:
    known = KnownTokens()
    known.add("one", "operator")
    known.add("two", "operator", person_id="operator-2")
    return known


@pytest.fixture
def sessions(tokens: KnownTokens, clock: HandClock) -> Sessions:
    return Sessions(tokens.verify, clock, SETTINGS)


def _enter(sessions: Sessions, credential: str = "one") -> tuple[str, Session]:
    return sessions.sign_in(credential, "10.0.0.1")


def test_a_session_is_found_by_its_cookie_alone(sessions: Sessions) -> None:
    cookie, session = _enter(sessions)
    found = sessions.find(cookie)
    assert found is not None
    assert found.principal == session.principal
    assert sessions.find("planted") is None
    assert sessions.find("") is None


def test_each_sign_in_has_a_cookie_and_a_form_token_of_its_own(sessions: Sessions) -> None:
    (first, one), (second, two) = _enter(sessions), _enter(sessions, "two")
    assert first != second
    assert one.csrf != two.csrf


def test_half_an_hour_without_a_request_ends_it(sessions: Sessions, clock: HandClock) -> None:
    cookie, _ = _enter(sessions)
    clock.wait(SETTINGS.idle_s - 1)
    assert sessions.find(cookie) is not None
    clock.wait(SETTINGS.idle_s - 1)
    assert sessions.find(cookie) is not None, "the request before began the time anew"
    clock.wait(SETTINGS.idle_s)
    assert sessions.find(cookie) is None


def test_a_shift_ends_it_however_busy_it_is(sessions: Sessions, clock: HandClock) -> None:
    cookie, _ = _enter(sessions)
    for _ in range(int(SETTINGS.lifetime_s // 1200)):
        clock.wait(1199)
        assert sessions.find(cookie) is not None
    clock.wait(1199)
    assert sessions.find(cookie) is None


def test_signing_out_ends_it_for_good(sessions: Sessions) -> None:
    cookie, _ = _enter(sessions)
    sessions.end(cookie)
    assert sessions.find(cookie) is None


def test_signing_in_elsewhere_ends_the_old_one_of_that_person_only(sessions: Sessions) -> None:
    old, _ = _enter(sessions)
    other, _ = _enter(sessions, "two")
    new, _ = _enter(sessions)
    assert sessions.find(old) is None
    assert sessions.find(other) is not None
    assert sessions.find(new) is not None


def test_a_revoked_token_ends_it_at_the_next_request(sessions: Sessions, tokens: KnownTokens) -> None:
    cookie, _ = _enter(sessions)
    del tokens.people["one"]
    assert sessions.find(cookie) is None
    tokens.add("one", "operator")
    assert sessions.find(cookie) is None, "what has ended does not come back"


def test_roles_are_those_that_the_token_has_now(sessions: Sessions, tokens: KnownTokens) -> None:
    tokens.add("one", "operator", "supervisor")
    cookie, _ = _enter(sessions)
    tokens.add("one", "operator")
    found = sessions.find(cookie)
    assert found is not None
    assert found.principal.roles == {"operator"}


def test_five_bad_sign_ins_lock_an_address_and_no_other(sessions: Sessions, clock: HandClock) -> None:
    for _ in range(SETTINGS.bad_sign_ins):
        with pytest.raises(Unauthenticated):
            sessions.sign_in("guess", "10.0.0.9")
    with pytest.raises(TooManyRequests) as locked:
        sessions.sign_in("one", "10.0.0.9")
    assert locked.value.code == "sign_in_locked"
    assert sessions.sign_in("one", "10.0.0.1")
    clock.wait(SETTINGS.lock_s)
    assert sessions.sign_in("one", "10.0.0.9")


def test_a_good_sign_in_begins_the_count_anew(sessions: Sessions) -> None:
    for _ in range(3):
        for _ in range(SETTINGS.bad_sign_ins - 1):
            with pytest.raises(Unauthenticated):
                sessions.sign_in("guess", "10.0.0.1")
        _enter(sessions)
