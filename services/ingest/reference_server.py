"""likeness.v1.References over gRPC: enrolled images for those who judge candidates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc

from services.ingest.consent import SharingConsent
from services.rpc.callers import principal_of
from services.rpc.v1 import reference_pb2, reference_pb2_grpc
from services.shared.errors import NotFound
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import TokenVerifier

SERVICE_NAME = "likeness.v1.References"


class SubjectReferences(Protocol):
    """What the ledger knows of a subject's references; `adapters.sql_subjects.SqlSubjectReferences`."""

    def references_of(
        self, watchlist_id: str, owner: str, subject_id: str, reference_id: str | None = None
    ) -> Sequence[reference_pb2.EnrolledReference]:
        """Enrolled, not withdrawn, newest capture first: the newest hundreds, or the one that is asked for."""
        ...


class ReferencesServicer(reference_pb2_grpc.ReferencesServicer):
    """The person's own token decides, never the calling service."""

    def __init__(
        self, subjects: SubjectReferences, images: ImageStore, verifier: TokenVerifier, consent: SharingConsent
    ) -> None:
        self._subjects = subjects
        self._images = images
        self._verifier = verifier
        self._consent = consent

    def ListReferences(  # noqa: N802 - the stub's name
        self, request: reference_pb2.ListReferencesRequest, context: grpc.ServicerContext
    ) -> reference_pb2.ListReferencesResponse:
        found = self._permitted(request.watchlist_id, request.owner, request.subject_id, context)
        return reference_pb2.ListReferencesResponse(references=found)

    def ReadImage(  # noqa: N802 - the stub's name
        self, request: reference_pb2.ReadImageRequest, context: grpc.ServicerContext
    ) -> reference_pb2.EnrolledImage:
        # By its id: the older pictures of somebody with hundreds are candidates too.
        found = self._permitted(request.watchlist_id, request.owner, request.subject_id, context, request.reference_id)
        sha256 = next((one.image_sha256 for one in found if one.reference_id == request.reference_id), "")
        if not sha256:
            raise _not_found()
        return reference_pb2.EnrolledImage(content=self._images.get(sha256), sha256=sha256)

    def _permitted(
        self,
        watchlist_id: str,
        owner: str,
        subject_id: str,
        context: grpc.ServicerContext,
        reference_id: str | None = None,
    ) -> Sequence[reference_pb2.EnrolledReference]:
        principal = principal_of(context, self._verifier)
        found = self._subjects.references_of(watchlist_id, owner, subject_id, reference_id)
        if not found or watchlist_id not in principal.watchlists:
            raise _not_found()
        self._consent.require(principal.force, watchlist_id, owner)
        return found


def _not_found() -> NotFound:
    return NotFound("There is no such reference.", advice="Check the subject and that your token permits it.")
