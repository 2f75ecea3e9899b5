"""Which service may call what: deny by default, by the name in the caller's certificate.

Only with mutual TLS (services/rpc/mtls.py); without it nobody is known and this is not used. A new method of any
service is refused until it stands here; a test holds the table to the proto files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from services.rpc.mtls import caller_of
from services.shared.errors import Forbidden

# Generic in the type stubs only.
if TYPE_CHECKING:
    Interceptor = grpc.ServerInterceptor[Any, Any]
else:
    Interceptor = grpc.ServerInterceptor

# The tools beside the services on one machine: the supervisor, the command line, the demonstration. A cluster issues no
# certificate of this name.
TOOLS = "platform"
SERVICES = frozenset({"search", "ingest", "audit", "review", "embed"})
_EVERYONE = SERVICES | {TOOLS}
_WRITERS = frozenset({"search", "ingest", "review"})

CALLERS: Mapping[str, frozenset[str]] = {
    # Faces and templates of untrusted bytes.
    "/likeness.v1.Embed/Analyse": frozenset({"search", "ingest", "review"}),
    "/likeness.v1.Embed/DescribeModel": frozenset({"search", "ingest"}),
    "/likeness.v1.Films/ReadFilm": frozenset({"search"}),
    # Pictures of untrusted bytes, and enrolled images and searches with the token of the person who judges candidates.
    "/likeness.v1.Pictures/Render": frozenset({"review", "search"}),
    "/likeness.v1.References/ListReferences": frozenset({"review"}),
    "/likeness.v1.References/ReadImage": frozenset({"review"}),
    "/likeness.v1.Identification/Identify": frozenset({"review"}),
    "/likeness.v1.Identification/ListPartners": frozenset({"review"}),
    # Without a person's token: probes of unsolved cases, while nobody is there.
    "/likeness.v1.Unsolved/SearchAgain": frozenset({"review"}),
    # The sealed copies of a case's probes, when its time is over.
    "/likeness.v1.Probes/EraseProbes": frozenset({"review"}),
    # Everything enrolled, with its templates: search alone, which rebuilds its gallery from it.
    "/likeness.v1.Ledger/ReadReferences": frozenset({"search"}),
    "/likeness.v1.Ledger/CountReferences": frozenset({"search", TOOLS}),
    # When references came and went, for a search that is run again.
    "/likeness.v1.Ledger/DescribeReferences": frozenset({"search"}),
    "/likeness.v1.Ledger/FillSynthetic": frozenset({TOOLS}),
    # Whether an owner's agreement is in force, before it is enrolled under, and before a name is released under it.
    "/likeness.v1.Agreements/FindAgreement": frozenset({"ingest", "review"}),
    "/likeness.v1.Gallery/PutReferences": frozenset({"ingest"}),
    "/likeness.v1.Gallery/WithdrawReferences": frozenset({"ingest"}),
    "/likeness.v1.Gallery/DescribeGallery": frozenset({"ingest", TOOLS}),
    "/likeness.v1.Gallery/ListGallery": frozenset({"ingest"}),
    "/likeness.v1.Gallery/RebuildGallery": frozenset({"ingest"}),
    "/likeness.v1.Gallery/FindNeighbours": frozenset({"ingest"}),
    "/likeness.v1.Gallery/ListReturns": frozenset({"ingest"}),
    # Whoever acts writes; entries over gRPC are read by search, those of one search for its disclosure, and by ingest,
    # those of a subject's enrolments for the subject. embed, which decodes what strangers send, has no part in it.
    "/likeness.v1.Audit/Append": _WRITERS,
    "/likeness.v1.Audit/AppendBatch": _WRITERS,
    "/likeness.v1.Audit/GetCheckpoint": _WRITERS,
    "/likeness.v1.Audit/ProveInclusion": _WRITERS,
    "/likeness.v1.Audit/ProveConsistency": _WRITERS,
    "/likeness.v1.Audit/ProveActivity": frozenset({"search", "ingest"}),
    "/likeness.v1.Review/DescribeWorkflow": frozenset({TOOLS}),
    "/likeness.v1.Review/ListReleases": frozenset({"ingest"}),
    # Two models side by side: search follows what ingest says, ingest asks what search serves and measured.
    "/likeness.v1.Migrations/DescribeMigration": frozenset({"search"}),
    "/likeness.v1.Migrations/ReadModelReferences": frozenset({"search"}),
    "/likeness.v1.Models/FollowModels": frozenset({"ingest"}),
    "/likeness.v1.Models/ReportShadow": frozenset({"ingest"}),
    "/likeness.v1.Models/ListModelGallery": frozenset({"ingest"}),
    # Health and what is served, for whoever belongs to the platform.
    "/grpc.health.v1.Health/Check": _EVERYONE,
    "/grpc.health.v1.Health/List": _EVERYONE,
    "/grpc.health.v1.Health/Watch": _EVERYONE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _EVERYONE,
}
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class AccessInterceptor(Interceptor):
    """Refuses a call whose caller `callers` does not name for the method."""

    def __init__(self, callers: Mapping[str, frozenset[str]] = CALLERS) -> None:
        self._callers = callers

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        behaviours = {kind: getattr(handler, kind) for kind in _KINDS}
        guarded = {kind: self._guard(method, behaviour) for kind, behaviour in behaviours.items() if behaviour}
        return handler._replace(**guarded)  # type: ignore[no-any-return]

    def _guard(
        self, method: str, behaviour: Callable[[Any, grpc.ServicerContext], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        permitted = self._callers.get(method, frozenset())

        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            caller = caller_of(context)
            if caller not in permitted:
                structlog.get_logger().warning("peer_refused", peer=caller, method=method)
                raise Forbidden(
                    f"`{caller}` may not call {method}.",
                    advice="Calls between services that are meant to be stand in services/rpc/access.py.",
                    code="peer_not_permitted",
                )
            return behaviour(request, context)

        return guarded
