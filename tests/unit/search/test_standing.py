"""An answer is given again only while the consent that it rests on stands: by its id, and by its idempotency key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.rpc.auditing import AuditRecorder
from services.rpc.open_acts import OpenActs
from services.rpc.v1 import audit_pb2, ingest_pb2
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.disclosure.access import DisclosureAccess, DisclosureTrail
from services.search.disclosure.replay import ReplaySearch
from services.search.identification.acceptance import Acceptance
from services.search.identification.closing import Closing
from services.search.identification.identify import Identify
from services.search.identification.matching import Matching
from services.search.identification.near_duplicates import NearDuplicates, NearDuplicateSettings
from services.search.identification.operating_points import OperatingPoints
from services.search.identification.standing import StandingPermission
from services.search.identification.view import ViewSearch
from services.search.policy import PolicyFolder, Rulebook
from services.search.upkeep.keeper import GalleryKeeper
from services.search.upkeep.ledger_counts import LedgerCounts
from services.shared.biometric import ImageAnalysis
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden
from services.shared.multipart import Upload
from services.shared.telemetry import Metrics
from services.shared.watchlists import WatchlistFile, Watchlists
from tests.integration.search.peers import Reference, batch_of, vector_of
from tests.support.open_acts import MemoryActs
from tests.unit.search.fakes import OPERATOR, FakeLedgerSource, FakeModels, MemoryAudit, open_store, trail_to
from tests.unit.search.test_identify import Journal, NoCounts, RecordedAnalyser, RecordedProbes

UPLOAD = Upload(
    texts={
        "case_reference": ("C-1",),
        "purpose": ("prevention_and_detection",),
        "offence": ("burglary",),
        "source": ("cctv",),
        "watchlists": ("op_liberal",),
    },
    files={"image": (b"a probe",)},
)
KEY = "the-one-key"


class Consortium:
    """The packaged watchlists, whose owners may withdraw."""

    def __init__(self) -> None:
        self.watchlists = WatchlistFile().current()

    def current(self) -> Watchlists:
        return self.watchlists

    def withdraw(self, owner: str) -> None:
        self.watchlists = self.watchlists.with_agreements(
            one.model_copy(update={"withdrawn_on": one.signed_on}) if one.owner == owner else one
            for one in self.watchlists.agreements
        )


class AnalyserAgain(RecordedAnalyser):
    """Of a replay; `meanwhile` happens while it analyses."""

    def __init__(self) -> None:
        super().__init__(Journal())
        self.meanwhile: Callable[[], None] = lambda: None

    def begin(self, *_: object, **__: object) -> AnalyserAgain:
        return self

    def result(self) -> ImageAnalysis:
        self.meanwhile()
        return super().result()


class SealedProbe(RecordedProbes):
    def get(self, sha256: str) -> bytes:
        return UPLOAD.files["image"][0]


class NobodyNew:
    """A ledger without a word on anybody: nobody came since, and nothing is gone."""

    def describe_references(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]:
        return [ingest_pb2.ReferenceState(reference_id=name, settled_at_ms=1) for name in reference_ids]


class Stage:
    def __init__(self, folder: Path, *owners: str) -> None:
        self.consortium = Consortium()
        clock, metrics = SystemClock(), Metrics(CollectorRegistry())
        store, self.engine = open_store(folder)
        self.audit = MemoryAudit()
        trail = trail_to(self.audit, clock)
        enrolled = [Reference(f"r-{owner}", owner.upper(), vector_of("ann"), "op_liberal", owner) for owner in owners]
        gallery = GalleryKeeper(ExactGalleryStore(), FakeModels(), FakeLedgerSource(batch_of(enrolled)), metrics)
        gallery.tend()
        rules = Rulebook(PolicyFolder(), self.consortium)
        acceptance = Acceptance(rules, OperatingPoints(), gallery, clock)
        closing, standing = Closing(store, trail, clock, 20.0), StandingPermission(rules, clock)
        self.executor = ThreadPoolExecutor(4)
        self.identify = Identify(
            acceptance=acceptance,
            embed=RecordedAnalyser(Journal()),
            matching=Matching(gallery, acceptance, clock),
            store=store,
            probes=RecordedProbes(Journal()),
            trail=trail,
            closing=closing,
            counts=LedgerCounts(NoCounts()),
            near_duplicates=NearDuplicates(NearDuplicateSettings(), clock, metrics),
            clock=clock,
            metrics=metrics,
            executor=self.executor,
            standing=standing,
        )
        self.view = ViewSearch(store, trail, closing, standing)
        recorder = AuditRecorder(self.audit, "search", clock)
        self.analyser = AnalyserAgain()
        self.access = DisclosureAccess(store, closing)
        self.disclosures = DisclosureTrail(recorder, OpenActs(MemoryActs(), recorder, clock, 30.0))
        self.replay = ReplaySearch(
            access=self.access,
            acceptance=acceptance,
            embed=self.analyser,
            gallery=gallery,
            ledger=NobodyNew(),
            probes=SealedProbe(Journal()),
            trail=self.disclosures,
            clock=clock,
        )

    def last_reason(self) -> str:
        entry = list(self.audit.entries.values())[-1]
        assert entry.phase == audit_pb2.REFUSED
        return entry.details["reasons"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, "eastmoor", "northshire")
    yield stage
    stage.executor.shutdown()
    stage.engine.dispose()


def test_what_an_owner_withdrew_is_not_given_again_by_key_or_by_id(stage: Stage) -> None:
    first = orjson.loads(stage.identify(OPERATOR, UPLOAD, KEY))
    assert {one["owner"] for one in first["candidates"]} == {"eastmoor", "northshire"}
    assert orjson.loads(stage.identify(OPERATOR, UPLOAD, KEY)) == first
    stage.consortium.withdraw("eastmoor")
    with pytest.raises(Forbidden):
        stage.identify(OPERATOR, UPLOAD, KEY)
    assert stage.last_reason() == "permission_ended"
    with pytest.raises(Forbidden):
        stage.view(OPERATOR, first["search_id"])
    assert stage.last_reason() == "permission_ended"


def test_the_withdrawal_of_an_owner_without_a_candidate_hides_nothing(stage: Stage) -> None:
    stage.consortium.withdraw("eastmoor")
    first = orjson.loads(stage.identify(OPERATOR, UPLOAD, KEY))
    assert [one["owner"] for one in first["candidates"]] == ["northshire"]
    assert orjson.loads(stage.identify(OPERATOR, UPLOAD, KEY)) == first
    assert orjson.loads(stage.view(OPERATOR, first["search_id"])) == first


def test_who_is_no_longer_trained_does_not_see_the_list_again(stage: Stage) -> None:
    first = orjson.loads(stage.identify(OPERATOR, UPLOAD))
    with pytest.raises(Forbidden):
        stage.view(replace(OPERATOR, trained_until=date(2020, 1, 1)), first["search_id"])


def test_a_search_that_runs_again_gives_nobody_whose_owner_withdraws_meanwhile(stage: Stage) -> None:
    first = orjson.loads(stage.identify(OPERATOR, UPLOAD))
    again = orjson.loads(stage.replay(OPERATOR, first["search_id"], "the defence asks"))
    assert {one["owner"] for one in again["candidates"]} == {"eastmoor", "northshire"}
    stage.analyser.meanwhile = lambda: stage.consortium.withdraw("eastmoor")
    with pytest.raises(Forbidden) as refused:
        stage.replay(OPERATOR, first["search_id"], "the defence asks")
    assert refused.value.context["reasons"] == ["permission_ended"]
    later = orjson.loads(stage.replay(OPERATOR, first["search_id"], "the defence asks"))
    assert {one["owner"] for one in later["candidates"]} == {"northshire"}


def test_an_answer_that_waited_for_others_is_looked_at_once_more_and_the_log_says_that_it_was_kept(
    stage: Stage,
) -> None:
    first = orjson.loads(stage.identify(OPERATOR, UPLOAD))
    stage.identify.require_still(OPERATOR, first)
    stage.consortium.withdraw("eastmoor")
    with pytest.raises(Forbidden):
        stage.identify.require_still(OPERATOR, first)
    assert stage.last_reason() == "permission_ended"
    entry = list(stage.audit.entries.values())[-1]
    assert (entry.activity, list(entry.objects)) == ("search_withheld", [f"search:{first['search_id']}"])
