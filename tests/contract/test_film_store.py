"""What the record of films does, on every database that it may stand on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from services.rpc.v1 import films_pb2
from services.search.bootstrap import MIGRATIONS
from services.search.film.ports import FilmStatus, FilmTrack, NewFilm, Pick, TrackStill
from services.search.film.sql_store import SqlFilmStore
from services.shared.database import create_engine, migrate
from services.shared.errors import Conflict
from services.shared.ids import new_id
from services.shared.settings import DatabaseSettings
from tests.unit.search.fakes import OPERATOR

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
STILL = TrackStill(7, -40, 0.28, 1, 61.5, 22.0, "a" * 64, b"\xff\xd8 chip")
TRACKS = [FilmTrack(0, ((0.0, 1.5), (9.0, 9.4)), 12, 61.5, (STILL,)), FilmTrack(1, ((2.0, 2.0),), 1, 20.0, (STILL,))]


def new_film(**changes: Any) -> NewFilm:
    film = NewFilm(
        film_id=new_id(),
        outcome_entry_id=new_id(),
        principal=OPERATOR,
        texts={"purpose": ("prevention_and_detection",), "watchlists": ("custody", "op_liberal")},
        case_reference="C-1",
        purpose="prevention_and_detection",
        watchlists=("custody", "op_liberal"),
        sha256="0b" * 32,
        size_bytes=5 * 2**32,
        opened_at=NOW,
        idempotency_key=None,
        retain_until=date(2027, 2, 20),
    )
    return replace(film, **changes)


def segment(number: int, problem: str = "") -> films_pb2.FilmSegment:
    return films_pb2.FilmSegment(number=number, from_s=30.0 * number, frames_looked_at=40, problem=problem)


@contextmanager
def open_store_at(url: str) -> Iterator[SqlFilmStore]:
    engine = create_engine(DatabaseSettings(url=url))
    migrate(engine, MIGRATIONS)
    yield SqlFilmStore(engine)
    engine.dispose()


class TestFilmStore:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SqlFilmStore]:
        with open_store_at(f"sqlite:///{tmp_path / 'search.sqlite'}") as store:
            yield store

    @pytest.fixture
    def queued(self, store: SqlFilmStore) -> NewFilm:
        film = new_film()
        store.open(film)
        store.queue(film.film_id, ["p1", "p2"])
        return film

    def test_a_film_is_kept_as_it_was_handed_in(self, store: SqlFilmStore, queued: NewFilm) -> None:
        stored = store.find(queued.film_id)
        assert stored is not None
        assert (stored.status, stored.pieces, stored.size_bytes) == (FilmStatus.QUEUED, ("p1", "p2"), 5 * 2**32)
        assert (stored.texts, stored.watchlists, stored.opened_at) == (queued.texts, queued.watchlists, NOW)
        assert (stored.principal.person_id, stored.is_closed) == (OPERATOR.person_id, False)
        assert store.find(new_id()) is None

    def test_one_worker_has_a_film_until_its_claim_ends(self, store: SqlFilmStore, queued: NewFilm) -> None:
        with ThreadPoolExecutor(4) as threads:
            claimed = list(threads.map(lambda n: store.claim(f"w{n}", 100.0, 110.0), range(4)))
        assert sum(film is not None for film in claimed) == 1
        owner = next(f"w{n}" for n, film in enumerate(claimed) if film is not None)
        assert store.renew(queued.film_id, owner, 120.0)
        assert not store.renew(queued.film_id, "another", 120.0)
        assert store.claim("another", 115.0, 125.0) is None
        assert store.claim("another", 120.0, 130.0) is not None
        assert not store.renew(queued.film_id, owner, 140.0)

    def test_segments_are_kept_once_and_progress_is_counted(self, store: SqlFilmStore, queued: NewFilm) -> None:
        store.describe(queued.film_id, {"segments": 2}, ["ends_early"])
        for number in (0, 1, 1):
            store.add_segment(queued.film_id, segment(number, "film_decoder_crashed" if number else ""), 2.5)
        stored = store.find(queued.film_id)
        assert stored is not None
        assert (stored.segments_read, stored.frames_looked_at, stored.read_s) == (2, 80, 5.0)
        assert stored.warnings == ("ends_early", "segment 1: film_decoder_crashed")
        assert [part.number for part in store.segments(queued.film_id)] == [0, 1]

    def test_tracks_replace_the_faces_that_they_were_made_of(self, store: SqlFilmStore, queued: NewFilm) -> None:
        store.describe(queued.film_id, {}, [])
        store.add_segment(queued.film_id, segment(0), 1.0)
        store.set_status(queued.film_id, FilmStatus.CHOOSING)
        store.put_tracks(queued.film_id, TRACKS)
        store.put_tracks(queued.film_id, [])  # too late: it is closing
        assert store.contents(queued.film_id).tracks == TRACKS
        assert store.segments(queued.film_id) == []
        store.close(queued.film_id)
        stored = store.find(queued.film_id)
        assert stored is not None
        assert (stored.status, stored.is_closed) == (FilmStatus.DONE, True)
        assert store.claim("w", 1e12, 2e12) is None
        assert store.unclosed(10) == []

    def test_a_film_that_was_given_up_stays_so_and_forgets(self, store: SqlFilmStore, queued: NewFilm) -> None:
        store.describe(queued.film_id, {}, [])
        store.add_segment(queued.film_id, segment(0), 1.0)
        assert store.claim("w", 1.0, 2.0) is not None
        assert store.stop(queued.film_id, FilmStatus.CANCELLED, {"code": "film_cancelled"})
        assert not store.stop(queued.film_id, FilmStatus.FAILED, {})
        assert not store.renew(queued.film_id, "w", 9.0)
        store.add_segment(queued.film_id, segment(1), 1.0)
        store.set_status(queued.film_id, FilmStatus.CHOOSING)
        stored = store.find(queued.film_id)
        assert stored is not None
        assert (stored.status, stored.problem) == (FilmStatus.CANCELLED, {"code": "film_cancelled"})
        assert store.segments(queued.film_id) == []
        assert [film.film_id for film in store.unclosed(10)] == [queued.film_id]
        store.close(queued.film_id)
        assert store.unclosed(10) == []

    def test_a_key_gives_the_film_that_it_made_until_that_one_fails(self, store: SqlFilmStore) -> None:
        first, again = new_film(idempotency_key="k"), new_film(idempotency_key="k")
        assert store.open(first) is None
        earlier = store.open(again)
        assert earlier is not None
        assert earlier.film_id == first.film_id
        with pytest.raises(Conflict, match="another film"):
            store.open(new_film(idempotency_key="k", sha256="0c" * 32))
        assert store.open(new_film(idempotency_key="k", principal=replace(OPERATOR, person_id="op-8"))) is None
        assert store.stop(first.film_id, FilmStatus.FAILED, {"code": "audit_unavailable"})
        assert store.open(again) is None
        assert store.find(again.film_id) is not None

    def test_erasing_gives_what_the_film_alone_holds(self, store: SqlFilmStore, queued: NewFilm) -> None:
        other = new_film(sha256="0c" * 32)
        store.open(other)
        store.queue(other.film_id, ["p2", "p3"])  # a film cut short shares its first pieces
        store.set_status(queued.film_id, FilmStatus.CHOOSING)
        stills = [replace(STILL, sha256=letter * 64) for letter in "abc"]
        tracks = [FilmTrack(number, ((0.0, 1.0),), 9, 60.0, (still,)) for number, still in enumerate(stills)]
        store.put_tracks(queued.film_id, tracks)
        store.close(queued.film_id)
        store.add_pick(queued.film_id, Pick(1, new_id(), "op-7", NOW))
        assert [film.film_id for film in store.listed(OPERATOR.force)] == [queued.film_id, other.film_id]
        left = ["a" * 64, "c" * 64, "p1"]
        assert store.erase(queued.film_id, {"reason": "over"}) == left
        assert store.erase(queued.film_id, {"reason": "again"}) == left, "what a failure left is told again"
        store.removed(queued.film_id)
        stored = store.find(queued.film_id)
        assert stored is not None
        assert (stored.status, stored.pieces, stored.erasure) == (FilmStatus.ERASED, (), {"reason": "over"})
        contents = store.contents(queued.film_id)
        assert (contents.tracks, len(contents.picks)) == ([], 1)
        assert [film.film_id for film in store.listed(OPERATOR.force)] == [other.film_id]
        assert store.erase(other.film_id, {}) == ["p2", "p3"]

    def test_failures_are_remembered_until_something_is_read(self, store: SqlFilmStore, queued: NewFilm) -> None:
        store.claim("w", 1.0, 2.0)
        store.release(queued.film_id, "w", until_s=50.0, failures=3)
        assert store.claim("w", 49.0, 60.0) is None
        claimed = store.claim("w", 51.0, 60.0)
        assert claimed is not None
        assert claimed.failures == 3
        store.describe(queued.film_id, {}, [])
        store.add_segment(queued.film_id, segment(0), 1.0)
        stored = store.find(queued.film_id)
        assert stored is not None
        assert stored.failures == 0

    def test_a_pick_is_kept_once(self, store: SqlFilmStore, queued: NewFilm) -> None:
        pick = Pick(1, new_id(), "op-7", NOW)
        store.add_pick(queued.film_id, pick)
        store.add_pick(queued.film_id, pick)
        assert store.contents(queued.film_id).picks == [pick]
