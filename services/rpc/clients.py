"""The gRPC clients of the services: deadlines, error translation, typed answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any, cast

import grpc
import orjson

from services.rpc.convert import analysis_from_message, provenance_from_message
from services.rpc.mtls import secure_channel
from services.rpc.server import CHANNEL_OPTIONS, PROBLEM_METADATA
from services.rpc.tracing import traced_channel
from services.rpc.v1 import (
    agreements_pb2,
    agreements_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    common_pb2,
    embed_pb2,
    embed_pb2_grpc,
    films_pb2,
    films_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)
from services.shared.biometric import ImageAnalysis, ModelProvenance
from services.shared.errors import (
    AuditUnavailable,
    Conflict,
    DependencyUnavailable,
    Forbidden,
    InvalidRequest,
    LikenessError,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    error_from_code,
)
from services.shared.settings import ServiceSettings, TlsSettings

AUDIT_DEADLINE_S = 2.0  # fail closed well within the 3 s that callers are promised an answer in
PROOF_DEADLINE_S = 10.0  # a fresh checkpoint, and the entries of one case
EMBED_DEADLINE_S = 10.0  # 5 s of decoding, the worst probe that the gate allows, and waiting
GALLERY_DEADLINE_S = 30.0  # a batch of thousands of references
LEDGER_DEADLINE_S = 180.0  # the whole ledger or gallery, a million references, on a busy machine


def open_peer(settings: ServiceSettings, peer: str) -> grpc.Channel:
    """The channel of a service to another, as its settings say. Raises ConfigurationError."""
    return open_channel(getattr(settings.peers, peer), settings.tls, peer)


def open_channel(address: str, tls: TlsSettings | None = None, peer: str = "") -> grpc.Channel:
    """A channel that reconnects within a second, so that a restarted peer is found at once.

    With `tls` on, whoever answers has to prove that it is the service `peer`. Raises ConfigurationError.
    """
    options: tuple[tuple[str, str | int], ...] = (
        *CHANNEL_OPTIONS,
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_http_proxy", 0),
        # A name that stands for several replicas: calls go to each of them in turn.
        ("grpc.service_config", '{"loadBalancingConfig":[{"round_robin":{}}]}'),
    )
    if tls is not None and tls.is_on:
        return traced_channel(secure_channel(address, tls, peer, options))
    return traced_channel(grpc.insecure_channel(address, options=options))


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """Raise the LikenessError that the other side raised; what it could not say itself is DependencyUnavailable."""
    try:
        yield
    except grpc.RpcError as error:
        raise _likeness_error(error, peer) from error


_KINDS: Mapping[grpc.StatusCode, type[LikenessError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
}


def _likeness_error(error: grpc.RpcError, peer: str) -> LikenessError:
    # The stubs type one pair where the library gives a tuple of pairs.
    metadata = dict(cast("tuple[tuple[str, bytes], ...]", error.trailing_metadata() or ()))
    if PROBLEM_METADATA in metadata:
        problem = common_pb2.Problem.FromString(metadata[PROBLEM_METADATA])
        context = {name: orjson.loads(text) for name, text in problem.context_json.items()}
        known = error_from_code(problem.code, problem.detail, problem.advice, context)
        if known is not None:
            return known
        # A code of its own, such as `audit_entry_conflict`, on an error whose kind the status tells.
        kind = _KINDS.get(error.code())
        if kind is not None:
            return kind(problem.detail, advice=problem.advice, code=problem.code, context=context)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        if "message larger" in str(error.details()):
            return PayloadTooLarge("The image is over the size limit.", advice="Send at most 32 MiB.")
        return Overloaded(f"{peer} is at its limit.", advice="Try again in a few seconds.")
    return DependencyUnavailable(
        f"{peer} does not answer ({error.code().name}).",
        advice="Try again; if it persists, tell the operators.",
    )


class PendingAnalysis:
    """An analysis under way in `embed`."""

    def __init__(self, call: grpc.CallFuture[embed_pb2.AnalyseResponse]) -> None:
        self._call = call

    def result(self) -> ImageAnalysis:
        """Wait for it, at most until its deadline. Raises what `EmbedClient.analyse` raises."""
        with translated("embed"):
            return analysis_from_message(self._call.result())

    def cancel(self) -> None:
        """Nobody needs the answer any more."""
        self._call.cancel()  # type: ignore[no-untyped-call]


class EmbedClient:
    """Faces and templates of an image."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = embed_pb2_grpc.EmbedStub(channel)

    def analyse(
        self,
        image: bytes,
        selection: embed_pb2.AnalyseRequest.Selection.ValueType,
        face_index: int = 0,
        *,
        timeout_s: float = EMBED_DEADLINE_S,
    ) -> ImageAnalysis:
        """Raises ImageRefused, Overloaded, DependencyUnavailable, PayloadTooLarge."""
        request = embed_pb2.AnalyseRequest(image=image, selection=selection, face_index=face_index)
        with translated("embed"):
            return analysis_from_message(self._stub.Analyse(request, timeout=timeout_s))

    def begin(
        self,
        image: bytes,
        selection: embed_pb2.AnalyseRequest.Selection.ValueType,
        face_index: int = 0,
        *,
        timeout_s: float = EMBED_DEADLINE_S,
    ) -> PendingAnalysis:
        """Like `analyse`, but returns at once, so that the caller can do something else meanwhile."""
        request = embed_pb2.AnalyseRequest(image=image, selection=selection, face_index=face_index)
        return PendingAnalysis(self._stub.Analyse.future(request, timeout=timeout_s))

    def describe_model(self, *, timeout_s: float = 2.0) -> ModelProvenance:
        with translated("embed"):
            return provenance_from_message(
                self._stub.DescribeModel(embed_pb2.DescribeModelRequest(), timeout=timeout_s)
            )


class FilmReading:
    """A film being read. Iterate once; `cancel` may be called from another thread and ends the iteration."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __iter__(self) -> Iterator[films_pb2.FilmEvent]:
        """Raises FilmRefused, IntegrityError, Overloaded, DependencyUnavailable (also after `cancel`)."""
        with translated("embed"):
            yield from self._call

    def cancel(self) -> None:
        """Nobody needs the rest any more; changes nothing once it has ended."""
        self._call.cancel()


class FilmsClient:
    """Faces in moving images."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = films_pb2_grpc.FilmsStub(channel)

    def read(self, order: films_pb2.FilmOrder, content: Iterable[bytes], *, timeout_s: float) -> FilmReading:
        """Send a film, in pieces of at most 1 MiB, and take what is read of it as it comes."""

        def requests() -> Iterator[films_pb2.ReadFilmRequest]:
            yield films_pb2.ReadFilmRequest(order=order)
            for chunk in content:
                yield films_pb2.ReadFilmRequest(content=chunk)

        return FilmReading(self._stub.ReadFilm(requests(), timeout=timeout_s))


class GalleryClient:
    """Writes to the gallery that search owns."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = search_pb2_grpc.GalleryStub(channel)

    def put(self, batch: ingest_pb2.ReferenceBatch) -> search_pb2.PutReferencesResponse:
        """Raises ModelMismatch, GalleryIncomplete (still loading), DependencyUnavailable."""
        with translated("search"):
            return self._stub.PutReferences(batch, timeout=GALLERY_DEADLINE_S)

    def withdraw(self, reference_ids: list[str], versions: list[int]) -> int:
        request = search_pb2.WithdrawReferencesRequest(reference_ids=reference_ids, versions=versions)
        with translated("search"):
            return self._stub.WithdrawReferences(request, timeout=GALLERY_DEADLINE_S).withdrawn

    def describe(self) -> search_pb2.GalleryDescription:
        with translated("search"):
            return self._stub.DescribeGallery(search_pb2.DescribeGalleryRequest(), timeout=2.0)


class AgreementClient:
    """Asks search which agreement of an owner is in force."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = agreements_pb2_grpc.AgreementsStub(channel)

    def find(self, watchlist_id: str, owner: str, on: date) -> str:
        """Its reference; empty where there is none. Raises DependencyUnavailable."""
        request = agreements_pb2.FindAgreementRequest(watchlist_id=watchlist_id, owner=owner, on=on.isoformat())
        with translated("search"):
            return self._stub.FindAgreement(request, timeout=2.0).reference


class GalleryUpkeepClient:
    """Compares and rebuilds the gallery that search owns."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = search_pb2_grpc.GalleryStub(channel)

    def list_references(self) -> Iterator[search_pb2.GalleryListing]:
        """Raises GalleryIncomplete (still loading), DependencyUnavailable."""
        with translated("search"):
            yield from self._stub.ListGallery(search_pb2.ListGalleryRequest(), timeout=LEDGER_DEADLINE_S)

    def rebuild(self) -> search_pb2.GalleryDescription:
        """Raises Conflict (`rebuild_not_possible`), GalleryIncomplete, DependencyUnavailable."""
        with translated("search"):
            return self._stub.RebuildGallery(search_pb2.RebuildGalleryRequest(), timeout=600.0)


class LedgerClient:
    """Reads the enrolment ledger that ingest owns."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = ingest_pb2_grpc.LedgerStub(channel)

    def read_references(self, model_id: str) -> Iterator[ingest_pb2.ReferenceBatch]:
        """Raises ModelMismatch, DependencyUnavailable."""
        with translated("ingest"):
            yield from self._stub.ReadReferences(
                ingest_pb2.ReadReferencesRequest(model_id=model_id), timeout=LEDGER_DEADLINE_S
            )

    def count(self) -> ingest_pb2.LedgerCounts:
        with translated("ingest"):
            return self._stub.CountReferences(ingest_pb2.CountReferencesRequest(), timeout=10.0)

    def describe_references(self, reference_ids: Sequence[str]) -> Sequence[ingest_pb2.ReferenceState]:
        """What became of at most 1,000 references; unknown ones are left out. Raises DependencyUnavailable."""
        request = ingest_pb2.DescribeReferencesRequest(reference_ids=reference_ids)
        with translated("ingest"):
            return self._stub.DescribeReferences(request, timeout=10.0).references

    def fill_synthetic(self, request: ingest_pb2.FillSyntheticRequest) -> ingest_pb2.FillSyntheticResponse:
        with translated("ingest"):
            return self._stub.FillSynthetic(request, timeout=600.0)


class AuditClient:
    """Appends to the audit log. Whatever keeps an entry from being durable is AuditUnavailable: fail closed."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = audit_pb2_grpc.AuditStub(channel)

    def append(self, entry: audit_pb2.AuditEntry, *, timeout_s: float = AUDIT_DEADLINE_S) -> audit_pb2.AppendResponse:
        """Durable when it returns. Raises AuditUnavailable, Conflict (another entry under the same id)."""
        with _fail_closed():
            return self._stub.Append(audit_pb2.AppendRequest(entry=entry), timeout=timeout_s)

    def checkpoint(self, *, timeout_s: float = AUDIT_DEADLINE_S) -> audit_pb2.Checkpoint:
        """A signed tree head that holds every entry appended so far. Raises AuditUnavailable."""
        with _fail_closed():
            return self._stub.GetCheckpoint(audit_pb2.GetCheckpointRequest(fresh=True), timeout=timeout_s)

    def prove_inclusion(
        self, sequence: int, tree_size: int, *, timeout_s: float = AUDIT_DEADLINE_S
    ) -> audit_pb2.InclusionProof:
        """That an entry is in the tree of that size. Raises AuditUnavailable, InvalidRequest, NotFound."""
        request = audit_pb2.ProveInclusionRequest(sequence=sequence, tree_size=tree_size)
        with _fail_closed():
            return self._stub.ProveInclusion(request, timeout=timeout_s)

    def append_all(self, entries: Sequence[audit_pb2.AuditEntry], *, timeout_s: float = AUDIT_DEADLINE_S) -> None:
        """Like `append` for several, at most 256, that share a flush. Raises the same for the first that fails; what
        became of the others is then not known, and all of them can be appended again."""
        with _fail_closed():
            self._stub.AppendBatch(audit_pb2.AppendBatchRequest(entries=entries), timeout=timeout_s)

    def prove_activity(
        self, activity_id: str, case_reference: str, objects: Sequence[str], *, timeout_s: float = PROOF_DEADLINE_S
    ) -> audit_pb2.ProvenActivity:
        """What the log says of one activity and of what it made, with proofs. Raises AuditUnavailable."""
        request = audit_pb2.ProveActivityRequest(
            activity_id=activity_id, case_reference=case_reference, objects=objects
        )
        with _fail_closed():
            return self._stub.ProveActivity(request, timeout=timeout_s)


@contextmanager
def _fail_closed() -> Iterator[None]:
    try:
        with translated("audit"):
            yield
    except (DependencyUnavailable, Overloaded) as error:
        raise AuditUnavailable(
            "The audit log cannot be written, so nothing was done and nothing is disclosed.",
            advice="Try again in a few seconds; operators: start the audit service and check its disk.",
        ) from error
