"""Sessions end: by idleness, by age, by sign-out, by a new sign-in, and when the token no longer verifies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.review.console.session_store import Ended, Tokens, opened
from services.review.console.sessions import Session, Sessions, SessionSettings
from services.shared.errors import TooManyRequests, Unauthenticated
from tests.unit.review.console.browser import HandClock, KnownTokens, MemorySessions

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
def store() -> MemorySessions:
    return MemorySessions()


@pytest.fixture
def sessions(tokens: KnownTokens, clock: HandClock, store: MemorySessions) -> Sessions:
    return Sessions(tokens.verify, clock, SETTINGS, store)


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


def test_a_namesake_in_another_force_ends_nothing_and_another_spelling_does(
    sessions: Sessions, tokens: KnownTokens
) -> None:
    cookie, mine = _enter(sessions)
    tokens.people["theirs"] = replace(mine.principal, force="eastmoor")
    _enter(sessions, "theirs")
    assert sessions.find(cookie) is not None
    tokens.people["typed"] = replace(mine.principal, person_id=mine.principal.person_id.upper())
    _enter(sessions, "typed")
    assert sessions.find(cookie) is None


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


def test_its_person_is_told_why_it_ended(sessions: Sessions, tokens: KnownTokens, clock: HandClock) -> None:
    cookie, _ = _enter(sessions)
    clock.wait(SETTINGS.idle_s)
    assert (sessions.find(cookie), sessions.why_ended(cookie)) == (None, Ended.IDLE)
    unasked, _ = _enter(sessions)
    clock.wait(SETTINGS.idle_s)
    other, _ = _enter(sessions, "two")
    assert (sessions.find(unasked), sessions.why_ended(unasked)) == (None, Ended.IDLE), "cleared away by another's"
    _enter(sessions, "two")
    assert (sessions.find(other), sessions.why_ended(other)) == (None, Ended.ELSEWHERE)
    mine, _ = _enter(sessions)
    del tokens.people["one"]
    assert (sessions.find(mine), sessions.why_ended(mine)) == (None, Ended.ACCESS)
    assert (sessions.why_ended("planted"), sessions.why_ended("")) == (None, None)


def test_why_it_ended_is_forgotten_after_a_shift(sessions: Sessions, clock: HandClock, store: MemorySessions) -> None:
    cookie, _ = _enter(sessions)
    _enter(sessions)
    assert sessions.why_ended(cookie) is Ended.ELSEWHERE
    clock.wait(SETTINGS.lifetime_s)
    _enter(sessions, "two")
    assert sessions.why_ended(cookie) is None
    assert [why for why, _ in store.ended.values()] == [], "the one of today as well: it was last used a shift ago"


def test_windows_that_ask_how_long_it_stands_do_not_keep_it(sessions: Sessions, clock: HandClock) -> None:
    cookie, _ = _enter(sessions)
    for left_s in (1200.0, 600.0):
        clock.wait(600)
        standing = sessions.standing(cookie)
        assert (standing.left_s, standing.can_stay, standing.ended) == (left_s, True, None)
    clock.wait(600)
    standing = sessions.standing(cookie)
    assert (standing.left_s, standing.ended) == (0, Ended.IDLE)
    assert sessions.find(cookie) is None
    assert sessions.standing(cookie).ended is Ended.IDLE


def test_at_the_end_of_its_longest_life_using_it_gives_it_no_more(sessions: Sessions, clock: HandClock) -> None:
    cookie, _ = _enter(sessions)
    for _ in range(int(SETTINGS.lifetime_s // 1200) - 1):
        clock.wait(1200)
        assert sessions.find(cookie) is not None
    standing = sessions.standing(cookie)
    assert (standing.left_s, standing.can_stay) == (1200, False)
    clock.wait(1200)
    assert sessions.standing(cookie).ended is Ended.AGE


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


def test_a_session_outlives_the_process_and_is_the_same_for_every_replica(
    sessions: Sessions, tokens: KnownTokens, clock: HandClock, store: MemorySessions
) -> None:
    cookie, session = _enter(sessions)
    other = Sessions(tokens.verify, clock, SETTINGS, store)
    found = other.find(cookie)
    assert found == session, "the form token too: a form of one replica is sent to another"
    clock.wait(SETTINGS.idle_s - 1)
    assert other.find(cookie) is not None
    clock.wait(SETTINGS.idle_s - 1)
    assert sessions.find(cookie) is not None, "a use of one replica counts for the others"
    other.end(cookie)
    assert sessions.find(cookie) is None


def test_the_store_alone_opens_nothing(sessions: Sessions, store: MemorySessions) -> None:
    cookie, session = _enter(sessions)
    [stored] = store.stored.values()
    for secret in (cookie, session.csrf):
        assert secret not in repr(stored)
    assert session.token.encode() not in stored.sealed
    assert opened("another cookie", stored.sealed) is None
    assert opened(cookie, stored.sealed) == Tokens("one")


def test_a_token_that_ran_out_is_renewed_once_and_the_session_goes_on(
    tokens: KnownTokens, clock: HandClock, store: MemorySessions
) -> None:
    asked: list[str] = []

    def renew(old: Tokens) -> Tokens:
        asked.append(old.refresh)
        tokens.add("fresh", "operator")
        return Tokens("fresh", "second", old.id_token)

    sessions = Sessions(tokens.verify, clock, SETTINGS, store, renew)
    cookie, session = sessions.begin(Tokens("one", "first", "identity"))
    del tokens.people["one"]
    for _ in range(3):
        found = sessions.find(cookie)
        assert found is not None
        assert (found.token, found.csrf, found.id_token) == ("fresh", session.csrf, "identity")
    assert asked == ["first"]


@pytest.mark.parametrize("answer", ["refused", "another person"])
def test_a_token_that_is_not_renewed_or_for_somebody_else_ends_it(
    tokens: KnownTokens, clock: HandClock, store: MemorySessions, answer: str
) -> None:
    def renew(old: Tokens) -> Tokens:
        if answer == "refused":
            raise Unauthenticated("No.")
        return Tokens("two", "second")

    sessions = Sessions(tokens.verify, clock, SETTINGS, store, renew)
    cookie, _ = sessions.begin(Tokens("one", "first"))
    del tokens.people["one"]
    assert sessions.find(cookie) is None
    assert store.stored == {}


def test_what_another_replica_renewed_meanwhile_counts(
    tokens: KnownTokens, clock: HandClock, store: MemorySessions
) -> None:
    other = Sessions(tokens.verify, clock, SETTINGS, store, lambda old: Tokens("fresh", "second"))

    def renew(old: Tokens) -> Tokens:
        tokens.add("fresh", "operator")
        assert other.find(cookie) is not None
        raise Unauthenticated("The refresh token is used up.")

    sessions = Sessions(tokens.verify, clock, SETTINGS, store, renew)
    cookie, _ = sessions.begin(Tokens("one", "first"))
    del tokens.people["one"]
    found = sessions.find(cookie)
    assert found is not None
    assert found.token == "fresh"
