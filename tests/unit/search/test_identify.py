"""The order of effects of a search, and what is left of it when one of them fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.rpc.v1 import audit_pb2, embed_pb2, ingest_pb2
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.adapters.sql_search_store import SqlSearchStore
from services.search.identification.acceptance import Acceptance
from services.search.identification.closing import Closing
from services.search.identification.identify import Identify
from services.search.identification.matching import Matching
from services.search.identification.near_duplicates import NearDuplicates, NearDuplicateSettings
from services.search.identification.operating_points import OperatingPoints
from services.search.identification.standing import StandingPermission
from services.search.policy import PolicyFolder, Rulebook
from services.search.ports import Candidate, GalleryAnswer, NewSearch, SearchScope, SearchStatus, StoredSearch
from services.search.upkeep.keeper import GalleryKeeper
from services.search.upkeep.ledger_counts import LedgerCounts
from services.shared.biometric import DetectedFace, ImageAnalysis, ImageInfo, Vector
from services.shared.clock import SystemClock
from services.shared.errors import (
    AuditUnavailable,
    Conflict,
    DependencyUnavailable,
    ImageRefused,
    IntegrityError,
    LikenessError,
    NoFaceFound,
)
from services.shared.multipart import Upload
from services.shared.telemetry import Metrics
from services.shared.watchlists import WatchlistFile
from tests.integration.search.peers import MODEL_ID, Reference, batch_of, face_of, provenance, vector_of
from tests.unit.search.fakes import OPERATOR, FakeLedgerSource, FakeModels, MemoryAudit, open_store, trail_to

PROBE = b"a probe"
UPLOAD = Upload(
    texts={
        "case_reference": ("C-1",),
        "purpose": ("prevention_and_detection",),
        "offence": ("burglary",),
        "source": ("cctv",),
        "watchlists": ("custody",),
    },
    files={"image": (PROBE,)},
)


class Journal(list[str]):
    """What happened, in order. `fail_at` raises in place of doing it."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_at: dict[str, Exception] = {}

    def happens(self, what: str) -> None:
        self.append(what)
        if what in self.fail_at:
            raise self.fail_at[what]


class RecordedAnalyser:
    """An analysis that is under way until it is asked for."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.faces: tuple[DetectedFace, ...] = (face_of("ann", 0, MODEL_ID),)

    def begin(
        self, image: bytes, selection: embed_pb2.AnalyseRequest.Selection.ValueType, face_index: int = 0
    ) -> RecordedAnalyser:
        assert (image, selection) == (PROBE, embed_pb2.AnalyseRequest.SOLE)
        self._journal.happens("analysis begun")
        return self

    def result(self) -> ImageAnalysis:
        self._journal.happens("analysis ended")
        info = ImageInfo("JPEG", 640, 480, 1, 1, 1)
        return ImageAnalysis(info, self.faces, provenance(), {"gate": 1.0, "detect": 2.0, "template": 3.0})

    def cancel(self) -> None:
        self._journal.append("analysis cancelled")


class RecordedProbes:
    """An image store of which only `put` is used."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def put(self, content: bytes) -> str:
        self._journal.happens("probe sealed")
        return hashlib.sha256(content).hexdigest()

    def get(self, sha256: str) -> bytes:
        raise NotImplementedError

    def has(self, sha256: str) -> bool:
        raise NotImplementedError

    def remove(self, sha256: str) -> None:
        raise NotImplementedError


class RecordedGallery(ExactGalleryStore):
    journal: Journal

    def search(self, probe: Vector, scopes: Sequence[SearchScope], limit: int) -> GalleryAnswer:
        self.journal.happens("gallery searched")
        return super().search(probe, scopes, limit)


class RecordedStore(SqlSearchStore):
    journal: Journal

    def open(self, search: NewSearch) -> StoredSearch | None:
        self.journal.happens("search opened")
        return super().open(search)

    def finish(self, search_id: str, result: bytes, candidates: Sequence[Candidate], model_id: str) -> None:
        self.journal.happens("answer stored")
        super().finish(search_id, result, candidates, model_id)


class RecordedAudit(MemoryAudit):
    journal: Journal

    def append(self, entry: audit_pb2.AuditEntry) -> audit_pb2.AppendResponse:
        self.journal.happens(f"{audit_pb2.Phase.Name(entry.phase)} recorded")
        return super().append(entry)


class Setup:
    def __init__(self, folder: Path) -> None:
        self.journal = Journal()
        clock = SystemClock()
        metrics = Metrics(CollectorRegistry())
        _, self.engine = open_store(folder)
        self.store = RecordedStore(self.engine)
        self.audit = RecordedAudit()
        gallery_store = RecordedGallery()
        self.store.journal = self.audit.journal = gallery_store.journal = self.journal
        self.analyser = RecordedAnalyser(self.journal)
        ledger = FakeLedgerSource(batch_of([Reference("r-ann", "ANN", vector_of("ann"))]))
        gallery = GalleryKeeper(gallery_store, FakeModels(), ledger, metrics)
        gallery.tend()
        trail = trail_to(self.audit, clock)
        self.closing = Closing(self.store, trail, clock, 20.0)
        rules = Rulebook(PolicyFolder(), WatchlistFile())
        acceptance = Acceptance(rules, OperatingPoints(), gallery, clock)
        self.executor = ThreadPoolExecutor(4)
        self.identify = Identify(
            acceptance=acceptance,
            embed=self.analyser,
            matching=Matching(gallery, acceptance, clock),
            store=self.store,
            probes=RecordedProbes(self.journal),
            trail=trail,
            closing=self.closing,
            counts=LedgerCounts(NoCounts()),
            near_duplicates=NearDuplicates(NearDuplicateSettings(), clock, metrics),
            clock=clock,
            metrics=metrics,
            executor=self.executor,
            standing=StandingPermission(rules, clock),
        )

    def outcome(self) -> tuple[SearchStatus, list[str], bool]:
        """Of the only search: its status, its phases in the log, and whether anything of its answer is stored."""
        self.closing.flush()
        with self.engine.connect() as connection:
            (search_id,) = connection.exec_driver_sql("SELECT search_id FROM searches").scalars()
        stored = self.store.find(search_id)
        assert stored is not None
        return stored.status, self.audit.phases(search_id), stored.result is not None


class NoCounts:
    def count(self) -> ingest_pb2.LedgerCounts:
        raise NotImplementedError


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path)
    yield setup
    setup.executor.shutdown()
    setup.engine.dispose()


def test_nothing_is_searched_before_its_intent_and_nothing_leaves_before_its_outcome(setup: Setup) -> None:
    answer = orjson.loads(setup.identify(OPERATOR, UPLOAD))
    assert answer["candidates"][0]["reference_id"] == "r-ann"
    assert answer["unsearchable"] is None
    journal = setup.journal
    in_order = ["analysis begun", "search opened", "INTENT recorded", "analysis ended", "gallery searched"]
    assert [what for what in journal if what in in_order] == in_order
    searched = journal.index("gallery searched")
    assert journal.index("probe sealed") < journal.index("DONE recorded")
    assert searched < journal.index("DONE recorded")
    assert searched < journal.index("answer stored")
    assert setup.outcome() == (SearchStatus.DONE, ["INTENT", "DONE"], True)
    done = list(setup.audit.entries.values())[-1]
    stored = setup.store.find(done.activity_id)
    assert stored is not None
    assert stored.result is not None
    assert done.details["result_sha256"] == hashlib.sha256(stored.result).hexdigest()


Case = tuple[str, Exception, type[Exception], SearchStatus, list[str]]
CASES: Mapping[str, Case] = {
    "intent": (
        "INTENT recorded",
        AuditUnavailable("down"),
        AuditUnavailable,
        SearchStatus.FAILED,
        [],
    ),
    "refused image": (
        "analysis ended",
        ImageRefused("broken"),
        ImageRefused,
        SearchStatus.REFUSED,
        ["INTENT", "REFUSED"],
    ),
    "embed": (
        "analysis ended",
        DependencyUnavailable("embed"),
        DependencyUnavailable,
        SearchStatus.FAILED,
        ["INTENT", "FAILED"],
    ),
    "bug": ("analysis ended", ZeroDivisionError(), ZeroDivisionError, SearchStatus.FAILED, ["INTENT", "FAILED"]),
    "gallery": (
        "gallery searched",
        DependencyUnavailable("milvus"),
        DependencyUnavailable,
        SearchStatus.FAILED,
        ["INTENT", "FAILED"],
    ),
    "probe store": (
        "probe sealed",
        DependencyUnavailable("disk"),
        DependencyUnavailable,
        SearchStatus.FAILED,
        ["INTENT", "FAILED"],
    ),
    "outcome": ("DONE recorded", AuditUnavailable("down"), AuditUnavailable, SearchStatus.FAILED, ["INTENT"]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_when_a_step_fails_the_search_has_one_outcome_and_discloses_nothing(setup: Setup, case: Case) -> None:
    step, error, expected, status, phases = case
    setup.journal.fail_at[step] = error
    with pytest.raises(expected):
        setup.identify(OPERATOR, UPLOAD)
    assert setup.outcome() == (status, phases, False)
    if step == "INTENT recorded":
        assert "gallery searched" not in setup.journal
        assert "analysis cancelled" in setup.journal
    # What the log could not take is made up for; the id of the entry keeps it from being there twice.
    setup.journal.fail_at.clear()
    setup.closing.sweep()
    setup.closing.sweep()
    terminal = [phase for phase in setup.outcome()[1] if phase != "INTENT"]
    assert terminal == (["REFUSED"] if status is SearchStatus.REFUSED else ["FAILED"])


def test_when_the_answer_cannot_be_stored_it_is_not_given_and_has_one_outcome(setup: Setup) -> None:
    """The log may have DONE already, as both are written at once; then DONE stands, though nothing was disclosed."""
    setup.journal.fail_at["answer stored"] = DependencyUnavailable("disk")
    with pytest.raises(DependencyUnavailable):
        setup.identify(OPERATOR, UPLOAD)
    status, phases, has_answer = setup.outcome()
    assert (status, has_answer) == (SearchStatus.FAILED, False)
    assert phases in (["INTENT", "DONE"], ["INTENT", "FAILED"])


def test_a_search_that_was_held_for_lost_elsewhere_is_not_answered(setup: Setup) -> None:
    """Another process wrote UNKNOWN under the outcome's id meanwhile: that stands, and nothing is disclosed."""
    setup.journal.fail_at["DONE recorded"] = Conflict("another entry", code="audit_entry_conflict")
    with pytest.raises(AuditUnavailable):
        setup.identify(OPERATOR, UPLOAD)
    assert setup.outcome() == (SearchStatus.FAILED, ["INTENT"], False)


def test_a_probe_that_was_stored_as_something_else_is_not_searched_for(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecordedProbes, "put", lambda _self, _content: "0" * 64)
    with pytest.raises(IntegrityError):
        setup.identify(OPERATOR, UPLOAD)
    assert setup.outcome() == (SearchStatus.FAILED, ["INTENT", "FAILED"], False)


def test_when_no_outcome_can_be_recorded_that_is_the_error(setup: Setup) -> None:
    setup.analyser.faces = ()
    setup.journal.fail_at["REFUSED recorded"] = AuditUnavailable("down")
    with pytest.raises(AuditUnavailable):
        setup.identify(OPERATOR, UPLOAD)
    setup.journal.fail_at.clear()
    with pytest.raises(NoFaceFound):
        setup.identify(OPERATOR, UPLOAD)


@pytest.mark.parametrize(
    "change",
    [
        lambda: (UPLOAD, "x" * 201),
        lambda: (Upload({}, UPLOAD.files), None),
        lambda: (Upload(UPLOAD.texts, {}), None),
        lambda: (Upload(UPLOAD.texts, {"image": (b"",)}), None),
        lambda: (Upload({**UPLOAD.texts, "watchlists": ("sex_offenders",)}, UPLOAD.files), None),
    ],
)
def test_what_is_refused_before_it_begins_is_recorded_and_touches_nothing(
    setup: Setup, change: Callable[[], tuple[Upload, str | None]]
) -> None:
    upload, key = change()
    with pytest.raises(LikenessError) as refused:
        setup.identify(OPERATOR, upload, key)
    assert refused.value.caller_fault
    assert setup.journal == ["REFUSED recorded"]
    (entry,) = setup.audit.entries.values()
    assert entry.actor.person_id == "op-7"
    assert entry.details["reason"] == refused.value.code
