"""The Ledger service: what other services may see of the enrolment ledger."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from services.ingest.ports import EnrolmentLedger, ReferenceReader
from services.ingest.synthetic import FillCommand, FillSynthetic
from services.rpc.v1 import ingest_pb2, ingest_pb2_grpc
from services.shared.errors import InvalidRequest
from services.shared.tokens import Principal

SERVICE_NAME = "likeness.v1.Ledger"
MAX_DESCRIBED = 1000


class LedgerServicer(ingest_pb2_grpc.LedgerServicer):
    """Thin: every call is one use case or one query."""

    def __init__(self, ledger: EnrolmentLedger, references: ReferenceReader, synthetic: FillSynthetic) -> None:
        self._ledger = ledger
        self._references = references
        self._synthetic = synthetic

    def ReadReferences(  # noqa: N802 - the stub's name
        self, request: ingest_pb2.ReadReferencesRequest, _context: grpc.ServicerContext
    ) -> Iterator[ingest_pb2.ReferenceBatch]:
        if not request.model_id:
            raise InvalidRequest("`model_id` is empty.", advice="Give the model whose references are wanted.")
        yield from self._references.read(request.model_id)

    def CountReferences(  # noqa: N802 - the stub's name
        self, _request: ingest_pb2.CountReferencesRequest, _context: grpc.ServicerContext
    ) -> ingest_pb2.LedgerCounts:
        return ingest_pb2.LedgerCounts(watchlists=self._ledger.counts())

    def DescribeReferences(  # noqa: N802 - the stub's name
        self, request: ingest_pb2.DescribeReferencesRequest, _context: grpc.ServicerContext
    ) -> ingest_pb2.DescribeReferencesResponse:
        if len(request.reference_ids) > MAX_DESCRIBED:
            raise InvalidRequest(f"{len(request.reference_ids)} references.", advice=f"Ask for {MAX_DESCRIBED}.")
        return ingest_pb2.DescribeReferencesResponse(references=self._references.describe(request.reference_ids))

    def FillSynthetic(  # noqa: N802 - the stub's name
        self, request: ingest_pb2.FillSyntheticRequest, _context: grpc.ServicerContext
    ) -> ingest_pb2.FillSyntheticResponse:
        if not request.actor.person_id:
            raise InvalidRequest("`actor` is empty.", advice="Say who asks.")
        actor = request.actor
        principal = Principal(actor.person_id, actor.force, frozenset(actor.roles), frozenset())
        command = FillCommand(request.watchlist_id, request.owner, request.until_count, request.seed)
        added, enrolled = self._synthetic.fill(command, principal)
        return ingest_pb2.FillSyntheticResponse(added=added, enrolled=enrolled)
