"""The contract of SessionStore: sessions that outlive the process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.review.adapters.sql_session_store import SqlSessionStore
from services.review.bootstrap import MIGRATIONS
from services.review.console.session_store import Ended, SessionStore, StoredSession
from services.shared.database import create_engine, migrate
from services.shared.settings import DatabaseSettings
from tests.unit.review.console.browser import MemorySessions

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)


@pytest.fixture(params=["sql", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SessionStore]:
    if request.param == "memory":
        yield MemorySessions()
        return
    engine = create_engine(DatabaseSettings(url=f"sqlite:///{tmp_path / 'review.sqlite'}"))
    migrate(engine, MIGRATIONS)
    yield SqlSessionStore(engine)
    engine.dispose()


def session(key: str, person_id: str = "anna", seen_at: datetime = NOW) -> StoredSession:
    return StoredSession(key * 64, person_id, NOW, seen_at, b"sealed " + key.encode())


def test_what_was_begun_is_found_until_it_ends(store: SessionStore) -> None:
    store.begin(session("a"))
    assert store.find("a" * 64) == session("a")
    assert store.find("b" * 64) is None
    store.end("a" * 64)
    store.end("a" * 64)
    assert store.find("a" * 64) is None


def test_a_person_has_one_session(store: SessionStore) -> None:
    for one in (session("a"), session("b", "bert"), session("c")):
        store.begin(one)
    assert [store.find(key * 64) is not None for key in "abc"] == [False, True, True]


def test_a_persons_sessions_are_listed_with_where_they_were_begun(store: SessionStore) -> None:
    anna = replace(session("a"), address="2001:db8::7", agent="Firefox on Linux", replaced="[]")
    store.begin(anna)
    store.begin(session("b", "bert"))
    assert list(store.of("anna")) == [anna]
    assert list(store.of("nobody")) == []
    store.end("a" * 64)
    assert list(store.of("anna")) == []


def test_the_last_use_goes_forward_only_and_brings_nothing_back(store: SessionStore) -> None:
    store.begin(session("a"))
    later = NOW + timedelta(minutes=5)
    store.touch("a" * 64, later)
    store.touch("a" * 64, NOW)
    found = store.find("a" * 64)
    assert found is not None
    assert found.seen_at == later
    store.end("a" * 64)
    store.touch("a" * 64, later)
    assert store.find("a" * 64) is None


def test_of_two_who_renew_at_once_one_wins(store: SessionStore) -> None:
    store.begin(session("a"))
    assert store.reseal("a" * 64, b"sealed a", b"first")
    assert not store.reseal("a" * 64, b"sealed a", b"second")
    found = store.find("a" * 64)
    assert found is not None
    assert found.sealed == b"first"


def test_what_is_over_is_cleared_away(store: SessionStore) -> None:
    store.begin(session("a", "anna", NOW))
    store.begin(session("b", "bert", NOW + timedelta(minutes=1)))
    store.end_before(NOW, NOW - timedelta(hours=12))
    assert [store.find(key * 64) is not None for key in "ab"] == [False, True]
    store.end_before(NOW - timedelta(days=1), NOW)
    assert store.find("b" * 64) is None


def test_why_a_session_ended_is_kept_until_it_is_too_old(store: SessionStore) -> None:
    store.begin(session("a"))
    assert store.why_ended("a" * 64) is None
    store.begin(session("b"))
    assert store.why_ended("a" * 64) is Ended.ELSEWHERE
    store.end("b" * 64, Ended.CLOSED)
    store.end("b" * 64, Ended.IDLE)
    assert store.why_ended("b" * 64) is Ended.CLOSED, "what has ended does not end again"
    store.begin(session("c"))
    store.end("c" * 64)
    assert store.why_ended("c" * 64) is None
    store.begin(session("d"))
    store.end_before(NOW, NOW - timedelta(hours=12))
    assert store.why_ended("d" * 64) is Ended.IDLE
    store.begin(session("e", "anna", NOW + timedelta(minutes=1)))
    store.end_before(NOW - timedelta(hours=12), NOW)
    assert store.why_ended("e" * 64) is Ended.AGE
    assert store.why_ended("a" * 64) is None
