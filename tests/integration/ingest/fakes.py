"""Embed, search and audit as ingest sees them: real gRPC over real sockets, contents that a test can look at.

They live in the test's process and outlive the ingest processes that the test kills.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from threading import Lock
from time import sleep

import grpc
import numpy as np

from services.local.ports import reserve_ports
from services.rpc.convert import analysis_to_message, provenance_to_message
from services.rpc.server import GrpcServer
from services.rpc.v1 import (
    agreements_pb2,
    agreements_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    common_pb2,
    embed_pb2,
    embed_pb2_grpc,
    ingest_pb2,
    search_pb2,
    search_pb2_grpc,
)
from services.shared.biometric import (
    Box,
    DetectedFace,
    FaceTemplate,
    ImageAnalysis,
    ImageInfo,
    ModelProvenance,
    Quality,
    Vector,
)
from services.shared.errors import AuditUnavailable, Conflict, ImageRefused, LikenessError
from services.shared.watchlists import WatchlistFile

DIMENSION = 128


def provenance(model_id: str = "fake-model-1") -> ModelProvenance:
    return ModelProvenance(
        model_id=model_id,
        detector="fake-detector",
        detector_sha256="d" * 64,
        recogniser="fake-recogniser",
        recogniser_sha256="e" * 64,
        licence="Apache-2.0",
        dimension=DIMENSION,
        preprocessing_version="p1",
        runtime="none 1.0",
        provider="CPUExecutionProvider",
    )


def unit_vector(seed: bytes) -> Vector:
    numbers = np.random.default_rng(list(hashlib.sha256(seed).digest())).standard_normal(DIMENSION, dtype=np.float32)
    return (numbers / np.linalg.norm(numbers)).astype(np.float32)


def face(image: bytes, *, x: float = 100, inter_eye_px: float = 60, quality: float = 80) -> DetectedFace:
    size = inter_eye_px * 2.4
    return DetectedFace(
        box=Box(x, 100, size, size * 1.2),
        landmarks=((x + 20, 140), (x + 80, 140), (x + 50, 170), (x + 30, 200), (x + 70, 200)),
        detection_score=0.93,
        inter_eye_px=inter_eye_px,
        quality=Quality(quality, {"sharpness": quality, "inter_eye_distance": 75.0}),
        template=FaceTemplate(unit_vector(image), "fake-model-1"),
    )


class FakeEmbed(embed_pb2_grpc.EmbedServicer):
    """Answers by what the bytes say: b"noface…", b"twofaces…", b"tiny…", b"blurred…", b"broken…", b"crash…"."""

    def __init__(self) -> None:
        self.model_id = "fake-model-1"
        self.delay_s = 0.0
        self.calls: Counter[bytes] = Counter()
        # Called with the image before the answer is made; raises or kills as the test wants.
        self.before: Callable[[bytes], None] = lambda _image: None
        self._lock = Lock()

    def Analyse(  # noqa: N802 - the stub's name
        self, request: embed_pb2.AnalyseRequest, context: grpc.ServicerContext
    ) -> embed_pb2.AnalyseResponse:
        image = request.image
        with self._lock:
            self.calls[image] += 1
        self.before(image)
        if self.delay_s:
            sleep(self.delay_s)
        if image.startswith(b"broken"):
            raise ImageRefused("The file is truncated.", code="image_undecodable")
        if image.startswith(b"crash"):
            raise ImageRefused("The decoder died.", code="image_decoder_crashed")
        return analysis_to_message(
            ImageAnalysis(
                image=ImageInfo("JPEG", 640, 480, 1, 1, 1),
                faces=_faces_of(image),
                model=provenance(self.model_id),
                timings_ms={"gate": 1.0, "detect": 2.0, "template": 3.0, "queue": 0.0},
            )
        )

    def DescribeModel(  # noqa: N802 - the stub's name
        self, request: embed_pb2.DescribeModelRequest, context: grpc.ServicerContext
    ) -> common_pb2.ModelProvenance:
        return provenance_to_message(provenance(self.model_id))


def _faces_of(image: bytes) -> tuple[DetectedFace, ...]:
    if image.startswith(b"noface"):
        return ()
    if image.startswith(b"twofaces"):
        return (face(image), replace(face(image, x=400, inter_eye_px=55), template=None))
    if image.startswith(b"bystander"):
        return (replace(face(image, x=10, inter_eye_px=14), template=None), face(image))
    if image.startswith(b"tiny"):
        return (face(image, inter_eye_px=7),)
    if image.startswith(b"blurred"):
        return (face(image, quality=1),)
    return (face(image),)


class FakeAgreements(agreements_pb2_grpc.AgreementsServicer):
    """Knows the agreements of the packaged file, as search does that nobody has told of others."""

    def FindAgreement(  # noqa: N802 - the stub's name
        self, request: agreements_pb2.FindAgreementRequest, context: grpc.ServicerContext
    ) -> agreements_pb2.FindAgreementResponse:
        found = (
            WatchlistFile()
            .current()
            .agreement_in_force(request.watchlist_id, request.owner, date.fromisoformat(request.on))
        )
        return agreements_pb2.FindAgreementResponse(reference="" if found is None else found.reference)


class FakeGallery(search_pb2_grpc.GalleryServicer):
    """Holds references by the rules of the contract: idempotent by version, withdrawals win over older inserts."""

    def __init__(self) -> None:
        self.references: dict[str, tuple[int, str, str]] = {}  # reference_id: version, watchlist, subject
        self.vectors: dict[str, bytes] = {}
        self.withdrawn: dict[str, int] = {}
        self.put_calls = 0
        self.error: LikenessError | None = None
        # Called once a put has taken effect.
        self.after: Callable[[], None] = lambda: None
        self._lock = Lock()

    def PutReferences(  # noqa: N802 - the stub's name
        self, request: ingest_pb2.ReferenceBatch, context: grpc.ServicerContext
    ) -> search_pb2.PutReferencesResponse:
        if self.error is not None:
            raise self.error
        put = 0
        size, vectors = request.dimension * 4, request.vectors  # a field of bytes is copied whenever it is read
        with self._lock:
            self.put_calls += 1
            for place, reference_id in enumerate(request.reference_ids):
                version = request.versions[place]
                held = max(self.references.get(reference_id, (0, "", ""))[0], self.withdrawn.get(reference_id, 0))
                if version > held:
                    self.references[reference_id] = (version, request.watchlist_id, request.subject_ids[place])
                    self.vectors[reference_id] = vectors[place * size : (place + 1) * size]
                    put += 1
        self.after()
        return search_pb2.PutReferencesResponse(put=put, unchanged=len(request.reference_ids) - put)

    def WithdrawReferences(  # noqa: N802 - the stub's name
        self, request: search_pb2.WithdrawReferencesRequest, context: grpc.ServicerContext
    ) -> search_pb2.WithdrawReferencesResponse:
        if self.error is not None:
            raise self.error
        gone = 0
        with self._lock:
            for reference_id, version in zip(request.reference_ids, request.versions, strict=True):
                self.withdrawn[reference_id] = max(version, self.withdrawn.get(reference_id, 0))
                gone += self.references.pop(reference_id, None) is not None
        return search_pb2.WithdrawReferencesResponse(withdrawn=gone)

    def DescribeGallery(  # noqa: N802 - the stub's name
        self, request: search_pb2.DescribeGalleryRequest, context: grpc.ServicerContext
    ) -> search_pb2.GalleryDescription:
        return search_pb2.GalleryDescription(state="ready", model_id="fake-model-1")

    def ListGallery(  # noqa: N802 - the stub's name
        self, request: search_pb2.ListGalleryRequest, context: grpc.ServicerContext
    ) -> Iterator[search_pb2.GalleryListing]:
        for name, (version, watchlist_id, _) in dict(self.references).items():
            digest = hashlib.sha256(self.vectors[name]).digest()[:16]
            yield search_pb2.GalleryListing(
                watchlist_id=watchlist_id, reference_ids=[name], versions=[version], digests=digest
            )

    def RebuildGallery(  # noqa: N802 - the stub's name
        self, request: search_pb2.RebuildGalleryRequest, context: grpc.ServicerContext
    ) -> search_pb2.GalleryDescription:
        """It holds what it held; every owner's are counted together."""
        counts: dict[str, int] = {}
        for _, watchlist_id, _ in self.references.values():
            counts[watchlist_id] = counts.get(watchlist_id, 0) + 1
        return search_pb2.GalleryDescription(store="fake", searchable_by_watchlist=counts)

    def FindNeighbours(  # noqa: N802 - the stub's name
        self, request: search_pb2.FindNeighboursRequest, context: grpc.ServicerContext
    ) -> search_pb2.FindNeighboursResponse:
        """No points for the model: nothing is compared."""
        return search_pb2.FindNeighboursResponse()

    def ListReturns(  # noqa: N802 - the stub's name
        self, request: search_pb2.ListReturnsRequest, context: grpc.ServicerContext
    ) -> search_pb2.ListReturnsResponse:
        return search_pb2.ListReturnsResponse()


class FakeAudit(audit_pb2_grpc.AuditServicer):
    """Keeps entries in order; the same id with other words is a conflict, as in the real log."""

    def __init__(self) -> None:
        self.entries: list[audit_pb2.AuditEntry] = []
        self.is_down = False
        self.delay_s = 0.0
        # Called with each entry, once it is in the log.
        self.after: Callable[[audit_pb2.AuditEntry], None] = lambda _entry: None
        self._by_id: dict[str, audit_pb2.AuditEntry] = {}
        self._lock = Lock()

    def Append(  # noqa: N802 - the stub's name
        self, request: audit_pb2.AppendRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AppendResponse:
        if self.delay_s:
            sleep(self.delay_s)
        if self.is_down:
            raise AuditUnavailable("The disk of the log is full.")
        self._keep(request.entry)
        return audit_pb2.AppendResponse(sequence=0)

    def AppendBatch(  # noqa: N802 - the stub's name
        self, request: audit_pb2.AppendBatchRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AppendBatchResponse:
        if self.delay_s:
            sleep(self.delay_s)
        if self.is_down:
            raise AuditUnavailable("The disk of the log is full.")
        for entry in request.entries:
            self._keep(entry)
        return audit_pb2.AppendBatchResponse()

    def _keep(self, entry: audit_pb2.AuditEntry) -> None:
        with self._lock:
            known = self._by_id.setdefault(entry.entry_id, entry)
            if known is entry:
                self.entries.append(entry)
            elif _timeless(known) != _timeless(entry):
                raise Conflict("Another entry stands under this id.", code="audit_entry_conflict")
        self.after(entry)

    def GetCheckpoint(  # noqa: N802 - the stub's name
        self, request: audit_pb2.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> audit_pb2.Checkpoint:
        raise NotImplementedError

    def ProveInclusion(  # noqa: N802 - the stub's name
        self, request: audit_pb2.ProveInclusionRequest, context: grpc.ServicerContext
    ) -> audit_pb2.InclusionProof:
        raise NotImplementedError

    def ProveConsistency(  # noqa: N802 - the stub's name
        self, request: audit_pb2.ProveConsistencyRequest, context: grpc.ServicerContext
    ) -> audit_pb2.ConsistencyProof:
        raise NotImplementedError

    def ProveActivity(  # noqa: N802 - the stub's name
        self, request: audit_pb2.ProveActivityRequest, context: grpc.ServicerContext
    ) -> audit_pb2.ProvenActivity:
        raise NotImplementedError

    def terminal(self, activity_id: str) -> list[audit_pb2.AuditEntry]:
        return [e for e in self.entries if e.activity_id == activity_id and e.phase != audit_pb2.INTENT]

    def intents(self) -> set[str]:
        return {e.activity_id for e in self.entries if e.phase == audit_pb2.INTENT}

    def outcomes_by_activity(self) -> Counter[str]:
        return Counter(e.activity_id for e in self.entries if e.phase != audit_pb2.INTENT)


def _timeless(entry: audit_pb2.AuditEntry) -> bytes:
    copy = audit_pb2.AuditEntry()
    copy.CopyFrom(entry)
    copy.occurred_at = ""
    return copy.SerializeToString(deterministic=True)


class FakePeers:
    """The three services on ports of their own; each can be stopped and started again on the same port."""

    def __init__(self) -> None:
        self.embed = FakeEmbed()
        self.gallery = FakeGallery()
        self.audit = FakeAudit()
        self._servers: dict[str, GrpcServer] = {}
        # Kept from others while a peer is stopped.
        self.ports = dict(zip(("embed", "search", "audit"), reserve_ports("127.0.0.1", 3), strict=True))

    def start(self, name: str) -> None:
        register = {
            "embed": lambda server: embed_pb2_grpc.add_EmbedServicer_to_server(self.embed, server),
            "search": self._register_search,
            "audit": lambda server: audit_pb2_grpc.add_AuditServicer_to_server(self.audit, server),
        }[name]
        server = GrpcServer("127.0.0.1", self.ports[name], [], register, threads=48)
        server.start()
        server.set_serving(True)
        self._servers[name] = server

    def _register_search(self, server: grpc.Server) -> None:
        search_pb2_grpc.add_GalleryServicer_to_server(self.gallery, server)
        agreements_pb2_grpc.add_AgreementsServicer_to_server(FakeAgreements(), server)

    def stop(self, name: str) -> None:
        """At once: calls under way break off, as they do when a process is killed."""
        self._servers.pop(name).stop(grace_s=0.0)

    @contextmanager
    def running(self) -> Iterator[FakePeers]:
        for name in self.ports:
            self.start(name)
        try:
            yield self
        finally:
            for name in list(self._servers):
                self.stop(name)
