"""The clients that casework needs: searches and enrolled images on a person's behalf, pictures from the gate."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from services.rpc.callers import on_behalf_of
from services.rpc.clients import translated
from services.rpc.v1 import (
    picture_pb2,
    picture_pb2_grpc,
    reference_pb2,
    reference_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)

IDENTIFY_DEADLINE_S = 20.0  # the worst probe that the gate allows, twice, and waiting
RENDER_DEADLINE_S = 15.0
REFERENCES_DEADLINE_S = 5.0
# A search at home, then the slowest partner's time; within the age at which review takes an act for lost.
PARTNERS_DEADLINE_S = 38.0
OFFERS_DEADLINE_S = 5.0


class IdentificationClient:
    """Searches with a person's own token."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = search_pb2_grpc.IdentificationStub(channel)

    def identify(self, bearer: str, request: search_pb2.IdentifyRequest) -> bytes:
        """The answer's JSON. Raises what the REST API of search answers with."""
        deadline_s = PARTNERS_DEADLINE_S if request.partners else IDENTIFY_DEADLINE_S
        with translated("search"):
            return self._stub.Identify(request, timeout=deadline_s, metadata=on_behalf_of(bearer)).answer_json

    def partners(self, bearer: str, watchlists: Sequence[str]) -> Sequence[search_pb2.PartnerOffer]:
        """Whom the person may have asked about these watchlists. Raises Forbidden, DependencyUnavailable."""
        request = search_pb2.ListPartnersRequest(watchlists=watchlists)
        with translated("search"):
            answer = self._stub.ListPartners(request, timeout=OFFERS_DEADLINE_S, metadata=on_behalf_of(bearer))
        return list(answer.partners)


class PictureClient:
    """Pictures of the platform's own making from untrusted bytes."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = picture_pb2_grpc.PicturesStub(channel)

    def render(self, image: bytes, *, max_side: int, as_jpeg: bool = False) -> picture_pb2.RenderedPicture:
        """Raises ImageRefused, Overloaded, DependencyUnavailable, PayloadTooLarge."""
        request = picture_pb2.RenderRequest(image=image, max_side=max_side, as_jpeg=as_jpeg)
        with translated("embed"):
            return self._stub.Render(request, timeout=RENDER_DEADLINE_S)


class ReferenceClient:
    """Enrolled images with a person's own token."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = reference_pb2_grpc.ReferencesStub(channel)

    def references_of(
        self, bearer: str, watchlist: str, owner: str, subject_id: str
    ) -> Sequence[reference_pb2.EnrolledReference]:
        """Newest capture first. Raises NotFound, Unauthenticated, DependencyUnavailable."""
        request = reference_pb2.ListReferencesRequest(watchlist_id=watchlist, owner=owner, subject_id=subject_id)
        with translated("ingest"):
            answer = self._stub.ListReferences(request, timeout=REFERENCES_DEADLINE_S, metadata=on_behalf_of(bearer))
        return list(answer.references)

    def image(self, bearer: str, watchlist: str, owner: str, subject_id: str, reference_id: str) -> bytes:
        """The enrolled image as received. Raises NotFound, Unauthenticated, IntegrityError, DependencyUnavailable."""
        request = reference_pb2.ReadImageRequest(
            watchlist_id=watchlist, owner=owner, subject_id=subject_id, reference_id=reference_id
        )
        with translated("ingest"):
            return self._stub.ReadImage(request, timeout=REFERENCES_DEADLINE_S, metadata=on_behalf_of(bearer)).content
