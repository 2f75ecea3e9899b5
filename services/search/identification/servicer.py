"""likeness.v1.Identification over gRPC: the same use case as the REST API, for services that act for a person."""

from __future__ import annotations

import grpc

from services.rpc.callers import principal_of
from services.rpc.v1 import search_pb2, search_pb2_grpc
from services.search.http_api import Slots
from services.search.identification.acceptance import IMAGE_FIELD
from services.search.identification.identify import Identify
from services.search.partners.asking import AUTHORITY_FIELD, PARTNERS_FIELD
from services.search.partners.wiring import AskedPartners
from services.shared.errors import FaceChoiceNeeded
from services.shared.multipart import Upload
from services.shared.tokens import TokenVerifier

SERVICE_NAME = "likeness.v1.Identification"
_FACES_TOLD = 24


class IdentificationServicer(search_pb2_grpc.IdentificationServicer):
    """The caller's token decides, never the calling service."""

    def __init__(self, identify: Identify, verifier: TokenVerifier, slots: Slots, partners: AskedPartners) -> None:
        self._identify = identify
        self._verifier = verifier
        self._slots = slots
        self._partners = partners

    def Identify(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.IdentifyRequest, context: grpc.ServicerContext
    ) -> search_pb2.IdentifyResponse:
        principal = principal_of(context, self._verifier)
        if self._slots.limits is not None:
            self._slots.limits.take(principal)
        # A search at partners too takes one of the places of searches by itself, for as long as it searches at home.
        slots = self._partners.slots if request.partners else self._slots
        key = request.idempotency_key or None
        with slots.taken():
            try:
                form = form_of(request)
                answer = (
                    self._partners.search(principal, form, key)
                    if request.partners
                    else self._identify(principal, form, key)
                )
            except FaceChoiceNeeded as error:
                raise _without_pictures(error) from error
        return search_pb2.IdentifyResponse(answer_json=answer)

    def ListPartners(  # noqa: N802 - the name is the wire's
        self, request: search_pb2.ListPartnersRequest, context: grpc.ServicerContext
    ) -> search_pb2.ListPartnersResponse:
        offered = self._partners.offers(principal_of(context, self._verifier), request.watchlists)
        return search_pb2.ListPartnersResponse(
            partners=[
                search_pb2.PartnerOffer(
                    name=one.name, forces=one.forces, watchlists=one.watchlists, agreements=one.agreements
                )
                for one in offered
            ]
        )


def _without_pictures(error: FaceChoiceNeeded) -> FaceChoiceNeeded:
    """A problem travels in the trailing metadata, which has room for a few kilobytes: where the first faces are."""
    faces = [{"index": face["index"], "box": face["box"]} for face in error.context.get("faces", ())[:_FACES_TOLD]]
    return FaceChoiceNeeded(error.detail, advice=error.advice, context={"faces": faces})


def form_of(request: search_pb2.IdentifyRequest) -> Upload:
    """The request in the words of the REST form, so that one parser judges both."""
    single = {
        "case_reference": request.case_reference,
        "purpose": request.purpose,
        "offence": request.offence,
        "source": request.source,
        "nature": request.nature,
        "case_type": request.case_type,
        "face_chosen_by": request.face_chosen_by,
        "mode": request.mode,
        "max_candidates": str(request.max_candidates or ""),
        "face": str(request.face) if request.HasField("face") else "",
    }
    texts: dict[str, tuple[str, ...]] = {name: (value,) for name, value in single.items() if value}
    if request.partners:
        texts |= {PARTNERS_FIELD: tuple(request.partners), AUTHORITY_FIELD: (request.authority,)}
    return Upload(
        texts={**texts, "watchlists": tuple(request.watchlists)},
        files={IMAGE_FIELD: (request.image,)} if request.image else {},
    )
