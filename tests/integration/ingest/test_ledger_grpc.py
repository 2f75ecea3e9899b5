"""The ledger over gRPC: what the gallery is rebuilt from, counts, and synthetic references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from services.rpc.clients import LedgerClient
from services.rpc.v1 import audit_pb2, common_pb2, ingest_pb2
from services.shared.errors import Forbidden, InvalidRequest, ModelMismatch
from tests.integration.ingest.fakes import DIMENSION, FakePeers
from tests.integration.ingest.service import IngestProcess
from tests.support.promises import within

MODEL = "fake-model-1"
ACTOR = common_pb2.Actor(person_id="administrator-1", force="northshire", roles=["administrator"])


@pytest.fixture(scope="module")
def ledger(ingest: IngestProcess) -> LedgerClient:
    return ingest.ledger()


def fill(ledger: LedgerClient, until_count: int, watchlist: str = "custody", **fields: str) -> tuple[int, int]:
    request = ingest_pb2.FillSyntheticRequest(
        watchlist_id=watchlist, owner="northshire", until_count=until_count, seed=1, actor=ACTOR
    )
    answer = ledger.fill_synthetic(request)
    return answer.added, answer.enrolled


def references(ledger: LedgerClient) -> Iterator[ingest_pb2.ReferenceBatch]:
    return ledger.read_references(MODEL)


def test_a_fill_is_labelled_audited_once_and_goes_on_where_it_was(
    ingest: IngestProcess, peers: FakePeers, ledger: LedgerClient
) -> None:
    custodian = ingest.custodian()
    real = custodian.settled(custodian.enrol(b"one real face").json()["enrolment_id"])
    assert fill(ledger, 5000) == (4999, 5000)
    assert fill(ledger, 5000) == (0, 5000)
    assert fill(ledger, 5010) == (10, 5010)
    assert len(peers.gallery.references) == 5010
    subjects = {subject for _, _, subject in peers.gallery.references.values()} - {"NS-000001"}
    assert subjects == {f"SYNTHETIC-{number:06d}" for number in range(1, 5010)}
    fills = [e for e in peers.audit.entries if e.activity == "gallery_fill"]
    assert [e.phase for e in fills] == [audit_pb2.INTENT, audit_pb2.DONE] * 2
    assert {e.details["synthetic"] for e in fills} == {"true"}
    [counts] = [c for c in ledger.count().watchlists if c.watchlist_id == "custody"]
    assert (counts.accepted, counts.enrolled, counts.synthetic, counts.pending) == (5010, 5010, 5009, 0)
    # The count that an owner is shown is of its images.
    assert custodian.http.get("/v1/enrolments").json()["counts"]["enrolled"] == 1
    assert real["reference_id"] in peers.gallery.references
    assert {event.topic for event in ingest.events()} <= {"likeness.reference-enrolled.v1"}


def test_references_come_whole_in_ledger_order(peers: FakePeers, ledger: LedgerClient) -> None:
    fill(ledger, 300, "sex_offenders")
    found: dict[str, bytes] = {}
    for batch in references(ledger):
        count = len(batch.reference_ids)
        assert (batch.model_id, batch.dimension) == (MODEL, DIMENSION)
        columns = (batch.subject_ids, batch.owners, batch.image_sha256s, batch.versions, batch.expires_at)
        assert {len(column) for column in columns} == {count}
        assert list(batch.versions) == sorted(set(batch.versions))
        vectors = np.frombuffer(batch.vectors, "<f4").reshape(count, DIMENSION)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        found |= {reference_id: vectors[place].tobytes() for place, reference_id in enumerate(batch.reference_ids)}
    assert found == peers.gallery.vectors


def test_another_model_is_a_mismatch_and_none_a_mistake(ledger: LedgerClient) -> None:
    with pytest.raises(ModelMismatch):
        list(ledger.read_references("another-model"))
    with pytest.raises(InvalidRequest):
        list(ledger.read_references(""))


def test_an_unknown_watchlist_is_not_filled(ledger: LedgerClient) -> None:
    with pytest.raises(InvalidRequest):
        fill(ledger, 10, "nowhere")


def test_synthetic_references_need_the_setting(peers: FakePeers, tmp_path: Path) -> None:
    process = IngestProcess(tmp_path, peers)
    process.start_ready()
    try:
        assert list(references(process.ledger())) == []  # an empty ledger is of any model
        with pytest.raises(Forbidden):
            fill(process.ledger(), 10)
    finally:
        process.close()


def test_a_large_ledger_is_filled_and_read_in_time(ledger: LedgerClient) -> None:
    """The bounds are generous, because the machine is shared; what grows with the square of the size breaks them."""
    began = perf_counter()
    fill(ledger, 40_000)
    filled_s = perf_counter() - began
    assert filled_s < 180
    count = within(10, lambda: sum(len(batch.reference_ids) for batch in references(ledger)))
    assert count >= 40_000
