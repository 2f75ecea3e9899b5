"""A case is over: the copies of its probes that searches sealed go, and nothing that anybody else needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import grpc
import orjson
import pytest
import sqlalchemy as sa

from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenAct, OpenActs
from services.rpc.sql_open_acts import SqlOpenActs
from services.rpc.v1 import audit_pb2, common_pb2, probes_pb2
from services.search.adapters.schema import open_acts
from services.search.disclosure.access import require_probe
from services.search.film.ports import FilmStatus
from services.search.film.schema import film_picks, film_stills, films
from services.search.film.sql_holding import removable_images
from services.search.identification.requests import parse_request
from services.search.ports import NewSearch, SearchStatus
from services.search.probes.erasing import EraseProbes, Order
from services.search.probes.servicer import ProbesServicer
from services.search.probes.sql_sealed import SqlSealedProbes
from services.shared.adapters.folder_image_store import FolderImageStore
from services.shared.errors import Conflict, DependencyUnavailable, Forbidden, InvalidRequest
from services.shared.ids import new_id
from services.shared.tokens import Principal
from services.shared.watchlists import WatchlistFile
from tests.unit.search.fakes import OPERATOR, ManualClock, MemoryAudit, open_store
from tests.unit.search.test_identify import UPLOAD
from tests.unit.search.test_unsolved import Caller

CASE, OTHER = "NS/2026/1", "NS/2026/2"
ACTOR = Principal("service:review/anna", OPERATOR.force, frozenset(), frozenset())


class Setup:
    def __init__(self, folder: Path) -> None:
        self.clock, self.audit = ManualClock(), MemoryAudit()
        self.store, self.engine = open_store(folder)
        self.probes = FolderImageStore(folder / "probes")
        acts = OpenActs(
            SqlOpenActs(self.engine, open_acts), AuditRecorder(self.audit, "search", self.clock), self.clock, 20.0
        )
        self.erase = EraseProbes(SqlSealedProbes(self.engine), self.probes, acts, self.clock)

    def searched(
        self, content: bytes, case: str = CASE, *, force: str = "", is_open: bool = False, **film: object
    ) -> str:
        """A search of a probe that was sealed; its id."""
        request, search_id = parse_request(UPLOAD.texts, WatchlistFile().current()), new_id()
        principal = replace(OPERATOR, force=force or OPERATOR.force)
        self.store.open(
            NewSearch(
                search_id,
                new_id(),
                principal,
                replace(request, case_reference=case),
                self.probes.put(content),
                len(content),
                self.clock.now(),
            )
        )
        if not is_open:
            self.store.finish(search_id, orjson.dumps(film), (), "m1")
            self.store.close({search_id: None})
        return search_id

    def order(self, *contents: bytes, case: str = CASE) -> list[str]:
        names = [self.probes.put(content) for content in contents]
        return list(self.erase(Order(ACTOR, new_id(), case, "Its time is over.", names)))

    def has_probe(self, search_id: str) -> bool:
        search = self.store.find(search_id)
        assert search is not None
        return search.probe_erased_at is None


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path)
    yield setup
    setup.engine.dispose()


def test_every_copy_of_the_case_goes_and_the_searches_stay(setup: Setup) -> None:
    first, again = setup.searched(b"probe"), setup.searched(b"probe")
    sha256 = setup.probes.put(b"probe")
    assert setup.order(b"probe") == [sha256]
    assert not setup.probes.has(sha256)
    for search_id in (first, again):
        search = setup.store.find(search_id)
        assert search is not None
        assert search.status is SearchStatus.DONE
        with pytest.raises(Conflict) as gone:
            require_probe(search)
        assert gone.value.code == "probe_erased"
    intent, done = setup.audit.entries.values()
    assert (intent.phase, done.phase) == (audit_pb2.INTENT, audit_pb2.DONE)
    assert {done.operation, intent.operation} == {audit_pb2.ERASURE}
    assert {f"probe:{sha256}", f"search:{first}"} <= set(done.objects)
    assert (done.actor.person_id, done.case_reference, list(done.recipients)) == (ACTOR.person_id, CASE, [])


def test_once_more_is_nothing_and_no_entry(setup: Setup) -> None:
    setup.searched(b"probe")
    sha256 = setup.probes.put(b"probe")
    setup.order(b"probe")
    count = len(setup.audit.entries)
    assert list(setup.erase(Order(ACTOR, new_id(), CASE, "Again.", [sha256]))) == []
    assert len(setup.audit.entries) == count


@pytest.mark.parametrize(("case", "force"), [(OTHER, ""), (CASE, "eastmoor")])
def test_what_a_search_of_another_case_or_force_has_stays(setup: Setup, case: str, force: str) -> None:
    mine, theirs = setup.searched(b"probe"), setup.searched(b"probe", case, force=force)
    assert setup.order(b"probe") == []
    assert setup.probes.has(setup.probes.put(b"probe"))
    assert setup.has_probe(mine)
    assert setup.has_probe(theirs)


def test_while_a_search_with_it_runs_nothing_is_erased(setup: Setup) -> None:
    setup.searched(b"probe", is_open=True)
    with pytest.raises(DependencyUnavailable):
        setup.order(b"probe")
    assert setup.audit.entries == {}


def test_a_stop_between_record_and_removal_is_taken_up(setup: Setup) -> None:
    search_id = setup.searched(b"probe")
    SqlSealedProbes(setup.engine).mark_erased([search_id], setup.clock.now())
    assert len(setup.order(b"probe")) == 1
    assert not setup.has_probe(search_id)


def test_an_erasure_that_was_cut_short_says_how_far_it_came(setup: Setup) -> None:
    first, second = setup.searched(b"probe"), setup.searched(b"probe")
    sha256 = setup.probes.put(b"probe")
    act = OpenAct(
        "probe_erasure",
        audit_pb2.ERASURE,
        ACTOR,
        [f"probe:{sha256}", f"search:{first}", f"search:{second}"],
        {"reason": "Its time is over."},
    )
    told = [setup.erase.settle(act)]
    SqlSealedProbes(setup.engine).mark_erased([first, second], setup.clock.now())
    told.append(setup.erase.settle(act))
    setup.probes.remove(sha256)
    told.append(setup.erase.settle(act))
    assert [one.took_effect for one in told] == [False, False, True]
    assert [one.facts["left"] for one in told] == ["3", "1", "0"]


def test_the_other_stills_of_its_film_go_too_unless_the_film_is_kept(setup: Setup) -> None:
    stills = [setup.probes.put(content) for content in (b"best", b"second")]
    frames = {"frames": [{"still_sha256": sha256} for sha256 in stills]}
    search_id = setup.searched(b"best", film={"film_id": "f1", **frames})
    with setup.engine.begin() as connection:
        connection.execute(sa.insert(films), _film("f1", FilmStatus.DONE))
        connection.execute(sa.insert(film_stills), [_still(place, sha256) for place, sha256 in enumerate(stills)])
        connection.execute(sa.insert(film_picks), _pick(search_id))
    assert setup.order(b"best") == [], "they are part of a film that is kept"
    assert not setup.has_probe(search_id)
    with setup.engine.begin() as connection:
        film = connection.execute(sa.select(films)).one()
        assert removable_images(connection, film) == sorted(stills), "and go with it"
        connection.execute(sa.update(films).values(status=FilmStatus.ERASED.value))
    assert setup.order(b"best") == sorted(stills)


def test_only_review_erases_and_says_why(setup: Setup) -> None:
    servicer = ProbesServicer(setup.erase)
    setup.searched(b"probe")
    actor = common_pb2.Actor(person_id="anna", force=OPERATOR.force)
    request = probes_pb2.EraseProbesRequest(
        request_id=new_id(), case_reference=CASE, actor=actor, reason="Over.", sha256s=[setup.probes.put(b"probe")]
    )
    for caller in ("", "ingest"):
        with pytest.raises(Forbidden):
            servicer.EraseProbes(request, _context(caller))
    for bad in ({"reason": ""}, {"sha256s": ["../x"]}, {"case_reference": ""}, {"request_id": "x"}):
        changed = probes_pb2.EraseProbesRequest()
        changed.CopyFrom(request)
        for name in bad:
            changed.ClearField(name)  # type: ignore[arg-type]
        changed.MergeFrom(probes_pb2.EraseProbesRequest(**bad))
        with pytest.raises(InvalidRequest):
            servicer.EraseProbes(changed, _context("review"))
    assert len(servicer.EraseProbes(request, _context("review")).erased_sha256s) == 1
    assert {entry.actor.person_id for entry in setup.audit.entries.values()} == {"service:review/anna"}


def _context(caller: str) -> grpc.ServicerContext:
    return cast("grpc.ServicerContext", Caller(caller))


def _film(film_id: str, status: FilmStatus) -> dict[str, object]:
    empty = {column.name: _nothing(column) for column in films.columns if not column.nullable}
    return {**empty, "film_id": film_id, "status": status.value, "pieces": []}


def _still(place: int, sha256: str) -> dict[str, object]:
    empty = {column.name: _nothing(column) for column in film_stills.columns}
    return {**empty, "film_id": "f1", "place": place, "sha256": sha256}


def _pick(search_id: str) -> dict[str, object]:
    empty = {column.name: _nothing(column) for column in film_picks.columns}
    return {**empty, "film_id": "f1", "search_id": search_id}


def _nothing(column: sa.Column[object]) -> object:
    """A value of the column's type that says nothing."""
    kinds: dict[type, object] = {str: "", int: 0, float: 0.0, bytes: b"", bool: False, dict: []}
    kind = column.type.python_type
    return kinds.get(kind, datetime(2026, 6, 1, tzinfo=UTC) if kind is datetime else None)
