"""A kept probe searched again: by review alone, by the keeper's rights of today, and only who is new is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, cast

import grpc
import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.rpc.auditing import AuditRecorder
from services.rpc.v1 import audit_pb2, ingest_pb2, unsolved_pb2
from services.search.adapters.exact_gallery_store import ExactGalleryStore
from services.search.http_api import Slots
from services.search.identification.acceptance import Acceptance
from services.search.identification.closing import Closing
from services.search.identification.identify import Identify
from services.search.identification.identifying import IdentifyFor
from services.search.identification.matching import Matching
from services.search.identification.near_duplicates import NearDuplicates, NearDuplicateSettings
from services.search.identification.operating_points import OperatingPoint, OperatingPoints
from services.search.identification.standing import StandingPermission
from services.search.policy import PolicyFolder, Rulebook
from services.search.unsolved.again import Again, Mandate, SearchAgain, principal_of
from services.search.unsolved.newcomers import NewcomersOnly
from services.search.unsolved.servicer import UnsolvedServicer
from services.search.upkeep.keeper import GalleryKeeper
from services.search.upkeep.ledger_counts import LedgerCounts
from services.shared.biometric import ModelProvenance
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden, InvalidRequest
from services.shared.ids import new_id
from services.shared.multipart import Upload
from services.shared.revocations import Revocations
from services.shared.telemetry import Metrics
from services.shared.watchlists import WatchlistFile
from tests.integration.search.peers import Reference, batch_of, vector_like, vector_of
from tests.unit.search.fakes import OPERATOR, FakeLedgerSource, FakeModels, MemoryAudit, open_store, trail_to
from tests.unit.search.test_identify import UPLOAD, Journal, NoCounts, RecordedAnalyser, RecordedProbes

REFERENCES = [
    Reference("r-old", "OLD", vector_of("ann")),
    Reference("r-new", "NEW", vector_like("ann", 0.9)),
    Reference("r-far", "FAR", vector_of("somebody else")),
]
SETTLED = {"r-old": 1_000_000, "r-new": 3_000_000, "r-far": 3_000_000}


class Points(OperatingPoints):
    """One threshold for everything."""

    def find(self, model: ModelProvenance, watchlist_id: str) -> OperatingPoint | None:
        found = super().find(replace(model, recogniser="sface"), watchlist_id)
        return None if found is None else found.model_copy(update={"threshold": 0.5})


class Ledger:
    """Says when each reference was settled; what it does not know is not told."""

    def describe_references(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]:
        return [
            ingest_pb2.ReferenceState(reference_id=name, settled_at_ms=SETTLED[name])
            for name in reference_ids
            if name in SETTLED
        ]


class Setup:
    def __init__(self, folder: Path) -> None:
        clock, metrics, journal = SystemClock(), Metrics(CollectorRegistry()), Journal()
        store, self.engine = open_store(folder)
        self.audit, self.executor = MemoryAudit(), ThreadPoolExecutor(4)
        gallery = GalleryKeeper(ExactGalleryStore(), FakeModels(), FakeLedgerSource(batch_of(REFERENCES)), metrics)
        gallery.tend()
        self.gallery = gallery
        rules = Rulebook(PolicyFolder(), WatchlistFile())
        acceptance = Acceptance(rules, Points(), gallery, clock)
        make = partial(
            Identify,
            acceptance=acceptance,
            embed=RecordedAnalyser(journal),
            store=store,
            probes=RecordedProbes(journal),
            closing=Closing(store, trail_to(self.audit, clock), clock, 20.0),
            counts=LedgerCounts(NoCounts()),
            near_duplicates=NearDuplicates(NearDuplicateSettings(), clock, metrics),
            standing=StandingPermission(rules, clock),
            clock=clock,
            metrics=metrics,
            executor=self.executor,
        )
        identify_for = IdentifyFor(
            make, AuditRecorder(self.audit, "search", clock), Matching(gallery, acceptance, clock)
        )
        self.revocations = Revocations()
        self.search = SearchAgain(
            identify_for=identify_for,
            newcomers=lambda since_ms: NewcomersOnly(gallery, acceptance, clock, Ledger(), since_ms),
            acceptance=acceptance,
            gallery=gallery,
            revocations=lambda: self.revocations,
        )

    def again(self, **changes: Any) -> Again:
        upload = Upload({**UPLOAD.texts, "mode": ("identification",)}, UPLOAD.files)
        asked = Again(Mandate(OPERATOR, 2_000_000), new_id(), 2_000_000, "", upload, new_id())
        return replace(asked, **changes)

    def document(self, again: Again) -> dict[str, Any]:
        answer = self.search(again)
        assert answer is not None
        found: dict[str, Any] = orjson.loads(answer)
        return found

    def phases(self) -> list[str]:
        return [audit_pb2.Phase.Name(entry.phase) for entry in self.audit.entries.values()]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path)
    yield setup
    setup.executor.shutdown()
    setup.engine.dispose()


def test_only_who_is_new_is_given_stored_and_recorded(setup: Setup) -> None:
    again = setup.again()
    document = setup.document(again)
    assert [(one["rank"], one["subject_id"]) for one in document["candidates"]] == [(1, "NEW")]
    intent, done = setup.audit.entries.values()
    assert done.actor.person_id == "service:review/op-7"
    for entry in (intent, done):
        assert (entry.details["acting_for"], entry.details["request"]) == ("person:op-7", again.request_id)
    assert "reference:r-old" not in done.objects
    # The same search again is the same search; one that begins earlier has everybody over the threshold.
    assert setup.document(again)["search_id"] == document["search_id"]
    everybody = setup.document(setup.again(since_ms=0))
    assert [one["subject_id"] for one in everybody["candidates"]] == ["OLD", "NEW"]
    assert setup.document(setup.again(since_ms=9_000_000))["candidates"] == []


def test_who_came_in_as_the_last_search_began_is_not_lost_to_clocks_that_differ(setup: Setup) -> None:
    """The moment of that search is by the clock of search, that of the enrolment by the clock of ingest."""
    [new] = setup.document(setup.again(since_ms=SETTLED["r-new"] + 5_000))["candidates"]
    assert new["subject_id"] == "NEW"


def test_where_nothing_changed_nothing_is_searched(setup: Setup) -> None:
    snapshot = setup.document(setup.again())["gallery_snapshot"]["snapshot_id"]
    count = len(setup.audit.entries)
    assert setup.search(setup.again(unless_snapshot=snapshot)) is None
    assert len(setup.audit.entries) == count
    setup.gallery.put(batch_of([Reference("r-later", "LATER", vector_like("ann", 0.8), version=9)]))
    later = setup.document(setup.again(unless_snapshot=snapshot))
    assert [one["subject_id"] for one in later["candidates"]] == ["NEW", "LATER"]  # not settled yet is new


@pytest.mark.parametrize(
    ("mandate", "reason"),
    [
        (replace(OPERATOR, trained_until=date(2020, 1, 1)), "training_not_in_date"),
        (replace(OPERATOR, roles=frozenset({"supervisor"})), "role_missing"),
        (replace(OPERATOR, watchlists=frozenset({"op_liberal"})), "watchlist_not_permitted"),
    ],
)
def test_the_policy_of_today_decides_by_the_keepers_rights(setup: Setup, mandate: Any, reason: str) -> None:
    with pytest.raises(Forbidden) as refused:
        setup.search(setup.again(mandate=Mandate(mandate, 2_000_000), unless_snapshot="f" * 64))
    assert reason in refused.value.context["reasons"]
    assert setup.phases() == ["REFUSED"]


def test_a_keeper_whose_tokens_were_revoked_has_no_mandate(setup: Setup) -> None:
    setup.revocations = Revocations(persons={"op-7": 2_000})
    with pytest.raises(Forbidden):
        setup.search(setup.again())
    assert setup.phases() == ["REFUSED"]
    # Rights that were noted after it count.
    assert setup.search(setup.again(mandate=Mandate(OPERATOR, 2_001_000))) is not None


def test_a_list_of_fixed_length_is_not_searched_for(setup: Setup) -> None:
    with pytest.raises(InvalidRequest):
        setup.search(setup.again(upload=UPLOAD))
    with pytest.raises(InvalidRequest):
        principal_of("op-7", "", frozenset(), frozenset(), "")
    with pytest.raises(InvalidRequest):
        principal_of("op-7", "northshire", frozenset(), frozenset(), "soon")


class Caller:
    """A call over TLS with a certificate of this name; none without."""

    def __init__(self, service: str) -> None:
        self._service = service

    def auth_context(self) -> dict[str, list[bytes]]:
        if not self._service:
            return {}
        name = f"{self._service}.likeness.internal".encode()
        return {"transport_security_type": [b"ssl"], "x509_subject_alternative_name": [name]}


@pytest.mark.parametrize("service", ["", "ingest", "platform"])
def test_nobody_but_review_may_without_a_token(setup: Setup, service: str) -> None:
    servicer = UnsolvedServicer(setup.search, Slots(1))
    with pytest.raises(Forbidden) as refused:
        servicer.SearchAgain(unsolved_pb2.SearchAgainRequest(), cast(grpc.ServicerContext, Caller(service)))
    assert refused.value.code == "peer_not_permitted"
    with pytest.raises(InvalidRequest):
        servicer.SearchAgain(unsolved_pb2.SearchAgainRequest(), cast(grpc.ServicerContext, Caller("review")))
