"""Agreements as ingest asks for them before it enrols."""

from __future__ import annotations

from datetime import date

import grpc

from services.rpc.v1 import agreements_pb2, agreements_pb2_grpc
from services.search.policy import WatchlistSource
from services.shared.errors import InvalidRequest

SERVICE_NAME = "likeness.v1.Agreements"


class AgreementsServicer(agreements_pb2_grpc.AgreementsServicer):
    """likeness.v1.Agreements."""

    def __init__(self, watchlists: WatchlistSource) -> None:
        self._watchlists = watchlists

    def FindAgreement(  # noqa: N802 - the name is the wire's
        self, request: agreements_pb2.FindAgreementRequest, context: grpc.ServicerContext
    ) -> agreements_pb2.FindAgreementResponse:
        try:
            day = date.fromisoformat(request.on)
        except ValueError as error:
            raise InvalidRequest(f"{request.on!r} is no day.", advice="Send YYYY-MM-DD.") from error
        watchlists = self._watchlists.current()
        found = watchlists.agreement_in_force(request.watchlist_id, request.owner, day)
        return agreements_pb2.FindAgreementResponse(
            reference="" if found is None else found.reference, watchlists_digest=watchlists.digest
        )
