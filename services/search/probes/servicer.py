"""likeness.v1.Probes over gRPC: review alone, known by its certificate."""

from __future__ import annotations

import re

import grpc

from services.rpc.mtls import caller_of
from services.rpc.v1 import probes_pb2, probes_pb2_grpc
from services.search.probes.erasing import EraseProbes, Order
from services.shared.errors import Forbidden, InvalidRequest
from services.shared.ids import is_id
from services.shared.tokens import Principal

SERVICE_NAME = "likeness.v1.Probes"
_MOST = 1000
_SHA256 = re.compile("[0-9a-f]{64}")


class ProbesServicer(probes_pb2_grpc.ProbesServicer):
    """No person's token is there, so who calls has to be certain: without mutual TLS nobody may."""

    def __init__(self, erase: EraseProbes) -> None:
        self._erase = erase

    def EraseProbes(  # noqa: N802 - the name is the wire's
        self, request: probes_pb2.EraseProbesRequest, context: grpc.ServicerContext
    ) -> probes_pb2.EraseProbesResponse:
        if caller_of(context) != "review":
            raise Forbidden(
                "Only review ends cases, and proves with its certificate that it is review.",
                advice="Switch mutual TLS on: LIKENESS_<SERVICE>__TLS__….",
                code="peer_not_permitted",
            )
        return probes_pb2.EraseProbesResponse(erased_sha256s=self._erase(_order(request)))


def _order(request: probes_pb2.EraseProbesRequest) -> Order:
    """Raises InvalidRequest."""
    actor = request.actor
    names = [sha256 for sha256 in request.sha256s if _SHA256.fullmatch(sha256)]
    is_whole = is_id(request.request_id) and all((request.case_reference, actor.person_id, actor.force, request.reason))
    if not is_whole or len(names) != len(request.sha256s) or len(names) > _MOST:
        raise InvalidRequest(
            "The case, who ended it and why, and at most 1,000 SHA-256 are needed.", advice="Name all of them."
        )
    who = actor.person_id if actor.person_id.startswith("service:") else f"service:review/{actor.person_id}"
    return Order(
        principal=Principal(who, actor.force, frozenset(), frozenset()),
        request_id=request.request_id,
        case_reference=request.case_reference,
        reason=request.reason,
        sha256s=names,
    )
