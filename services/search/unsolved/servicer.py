"""likeness.v1.Unsolved over gRPC: review alone, known by its certificate."""

from __future__ import annotations

import grpc

from services.rpc.mtls import caller_of
from services.rpc.v1 import unsolved_pb2, unsolved_pb2_grpc
from services.search.http_api import Slots
from services.search.identification.acceptance import IMAGE_FIELD
from services.search.identification.servicer import form_of
from services.search.unsolved.again import LONGEST_LIST, Again, Mandate, SearchAgain, principal_of
from services.shared.errors import Forbidden
from services.shared.multipart import Upload

SERVICE_NAME = "likeness.v1.Unsolved"


class UnsolvedServicer(unsolved_pb2_grpc.UnsolvedServicer):
    """No person's token is there, so who calls has to be certain: without mutual TLS nobody may."""

    def __init__(self, search_again: SearchAgain, slots: Slots) -> None:
        self._search_again = search_again
        self._slots = slots

    def SearchAgain(  # noqa: N802 - the name is the wire's
        self, request: unsolved_pb2.SearchAgainRequest, context: grpc.ServicerContext
    ) -> unsolved_pb2.SearchAgainResponse:
        if caller_of(context) != "review":
            raise Forbidden(
                "Only review searches kept probes again, and proves with its certificate that it is review.",
                advice="Switch mutual TLS on: LIKENESS_<SERVICE>__TLS__….",
                code="peer_not_permitted",
            )
        again = _asked(request)
        with self._slots.taken():
            answer = self._search_again(again)
        if answer is None:
            return unsolved_pb2.SearchAgainResponse(is_unchanged=True)
        return unsolved_pb2.SearchAgainResponse(answer_json=answer)


def _asked(request: unsolved_pb2.SearchAgainRequest) -> Again:
    given, owner = request.mandate, request.mandate.owner
    principal = principal_of(
        owner.person_id, owner.force, frozenset(owner.roles), frozenset(given.watchlists), given.trained_until
    )
    upload = form_of(request.search)
    return Again(
        mandate=Mandate(principal, given.granted_at_ms),
        request_id=request.request_id,
        since_ms=request.since_ms,
        unless_snapshot=request.unless_snapshot,
        upload=Upload(
            {**upload.texts, "max_candidates": (LONGEST_LIST,)}, {IMAGE_FIELD: upload.files.get(IMAGE_FIELD, ())}
        ),
        key=request.search.idempotency_key,
    )
