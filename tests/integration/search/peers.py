"""Embed, ingest and audit as search sees them: real gRPC over real sockets, contents that a test can look at.

They live in the test's process and outlive the search processes that the test kills.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock

import grpc
import numpy as np
import numpy.typing as npt

from services.local.ports import reserve_ports
from services.rpc.convert import analysis_to_message, provenance_to_message
from services.rpc.server import GrpcServer
from services.rpc.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    common_pb2,
    embed_pb2,
    embed_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
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

DIMENSION = 128
MODEL_ID = "yunet+sface-test+p1"


def provenance(model_id: str = MODEL_ID) -> ModelProvenance:
    return ModelProvenance(
        model_id=model_id,
        detector="yunet-test",
        detector_sha256="d" * 64,
        recogniser="sface-test",
        recogniser_sha256="e" * 64,
        licence="Apache-2.0",
        dimension=DIMENSION,
        preprocessing_version="p1",
        runtime="none 1.0",
        provider="CPUExecutionProvider",
    )


def vector_of(name: str) -> Vector:
    """The template of the person of that name; other names are nearly orthogonal."""
    numbers = np.random.default_rng(list(hashlib.sha256(name.encode()).digest())).standard_normal(DIMENSION)
    return (numbers / np.linalg.norm(numbers)).astype(np.float32)


def vector_like(name: str, cosine: float) -> Vector:
    """A unit vector whose cosine with the person's template is the one asked for."""
    person = vector_of(name).astype(np.float64)
    other = vector_of(f"noise of {name}").astype(np.float64)
    other -= other @ person * person
    other /= np.linalg.norm(other)
    alike: Vector = (cosine * person + np.sqrt(1 - cosine**2) * other).astype(np.float32)
    return alike


def vector_seen(name: str) -> Vector:
    """What the fake recogniser sees: of "ann~7" the face of ann in the seventh picture, alike to every other of ann."""
    person, _, picture = name.partition("~")
    if not picture:
        return vector_of(person)
    mixed = 0.97 * vector_of(person) + 0.24 * vector_of(f"picture {picture} of {person}")
    seen: Vector = (mixed / np.linalg.norm(mixed)).astype(np.float32)
    return seen


def face_of(name: str, index: int, model_id: str) -> DetectedFace:
    x = 100.0 + 200 * index
    return DetectedFace(
        box=Box(x, 100, 120, 150),
        landmarks=((x + 30, 140), (x + 90, 140), (x + 60, 170), (x + 35, 200), (x + 85, 200)),
        detection_score=0.93,
        inter_eye_px=60.0,
        quality=Quality(81.25, {"sharpness": 81.25, "inter_eye_distance": 75.0}),
        template=FaceTemplate(vector_seen(name), model_id),
    )


class FakeEmbed(embed_pb2_grpc.EmbedServicer):
    """Answers by what the bytes say: b"face:ann", b"faces:ann,bob", b"noface", b"broken"; all after a | is ignored."""

    def __init__(self) -> None:
        self.model_id = MODEL_ID
        self.error: LikenessError | None = None
        # Called with the image before each answer; blocks as long as the test wants.
        self.before: Callable[[bytes], object] = lambda _image: None
        self.calls = 0
        self.cancelled = Event()

    def Analyse(  # noqa: N802 - the name is the wire's
        self, request: embed_pb2.AnalyseRequest, context: grpc.ServicerContext
    ) -> embed_pb2.AnalyseResponse:
        self.calls += 1
        # A callback on termination also runs after a normal end; only a call still active then was cancelled.
        answered = Event()
        context.add_callback(lambda: None if answered.is_set() else self.cancelled.set())
        self.before(request.image)
        answered.set()
        if self.error is not None:
            raise self.error
        kind, _, names = request.image.split(b"|")[0].decode().partition(":")
        if kind == "broken":
            raise ImageRefused("The file is truncated.", advice="Send a whole file.", code="image_undecodable")
        chosen = {
            embed_pb2.AnalyseRequest.SOLE: {0} if kind == "face" else set(),
            embed_pb2.AnalyseRequest.BY_INDEX: {request.face_index},
        }[request.selection]
        faces = [face_of(name, i, self.model_id) for i, name in enumerate(names.split(","))] if names else []
        analysis = ImageAnalysis(
            image=ImageInfo("JPEG", 640, 480, 1, 1, 1),
            faces=tuple(face if i in chosen else _without_template(face) for i, face in enumerate(faces)),
            model=provenance(self.model_id),
            timings_ms={"gate": 1.0, "detect": 2.0, "template": 3.0, "queue": 0.0},
        )
        return analysis_to_message(analysis)

    def DescribeModel(  # noqa: N802 - the name is the wire's
        self, request: embed_pb2.DescribeModelRequest, context: grpc.ServicerContext
    ) -> common_pb2.ModelProvenance:
        return provenance_to_message(provenance(self.model_id))


def _without_template(face: DetectedFace) -> DetectedFace:
    return DetectedFace(face.box, face.landmarks, face.detection_score, face.inter_eye_px, face.quality, None)


@dataclass(frozen=True)
class Reference:
    """One reference of the fake ledger."""

    reference_id: str
    subject_id: str
    vector: Vector
    watchlist: str = "custody"
    owner: str = "northshire"
    version: int = 1
    expires_at: int = 0


def batch_of(references: Sequence[Reference], model_id: str = MODEL_ID) -> ingest_pb2.ReferenceBatch:
    """References of one watchlist as they cross the wire."""
    rows: npt.NDArray[np.float32] = np.stack([reference.vector for reference in references])
    return ingest_pb2.ReferenceBatch(
        watchlist_id=references[0].watchlist,
        reference_ids=[reference.reference_id for reference in references],
        subject_ids=[reference.subject_id for reference in references],
        owners=[reference.owner for reference in references],
        image_sha256s=["" for _ in references],
        vectors=rows.astype("<f4").tobytes(),
        dimension=DIMENSION,
        model_id=model_id,
        versions=[reference.version for reference in references],
        expires_at=[reference.expires_at for reference in references],
    )


class FakeLedger(ingest_pb2_grpc.LedgerServicer):
    """Holds batches; `before_batch` is called before each is sent."""

    def __init__(self) -> None:
        self.batches: list[ingest_pb2.ReferenceBatch] = []
        self.counts = ingest_pb2.LedgerCounts()
        self.states: list[ingest_pb2.ReferenceState] = []
        self.before_batch: Callable[[], None] = lambda: None

    def FillSynthetic(  # noqa: N802 - the name is the wire's
        self, request: ingest_pb2.FillSyntheticRequest, context: grpc.ServicerContext
    ) -> ingest_pb2.FillSyntheticResponse:
        raise NotImplementedError("search never fills")

    def ReadReferences(  # noqa: N802 - the name is the wire's
        self, request: ingest_pb2.ReadReferencesRequest, context: grpc.ServicerContext
    ) -> Iterator[ingest_pb2.ReferenceBatch]:
        for batch in list(self.batches):
            self.before_batch()
            yield batch

    def DescribeReferences(  # noqa: N802 - the name is the wire's
        self, request: ingest_pb2.DescribeReferencesRequest, context: grpc.ServicerContext
    ) -> ingest_pb2.DescribeReferencesResponse:
        wanted = set(request.reference_ids)
        return ingest_pb2.DescribeReferencesResponse(
            references=[state for state in self.states if state.reference_id in wanted]
        )

    def CountReferences(  # noqa: N802 - the name is the wire's
        self, request: ingest_pb2.CountReferencesRequest, context: grpc.ServicerContext
    ) -> ingest_pb2.LedgerCounts:
        return self.counts


class FakeAudit(audit_pb2_grpc.AuditServicer):
    """Keeps entries in order; the same id with other words is a conflict, as in the real log."""

    def __init__(self) -> None:
        self.entries: list[audit_pb2.AuditEntry] = []
        self.is_down = False
        # Called with the entry before and after it is kept.
        self.before: Callable[[audit_pb2.AuditEntry], object] = lambda _entry: None
        self.after: Callable[[audit_pb2.AuditEntry], object] = lambda _entry: None
        self._by_id: dict[str, audit_pb2.AuditEntry] = {}
        self._lock = Lock()

    def Append(  # noqa: N802 - the name is the wire's
        self, request: audit_pb2.AppendRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AppendResponse:
        entry = request.entry
        self.before(entry)
        if self.is_down:
            raise AuditUnavailable("The disk of the log is full.")
        with self._lock:
            known = self._by_id.setdefault(entry.entry_id, entry)
            if known is entry:
                self.entries.append(entry)
            elif _timeless(known) != _timeless(entry):
                raise Conflict("Another entry stands under this id.", code="audit_entry_conflict")
            sequence = self.entries.index(known)
        self.after(entry)
        return audit_pb2.AppendResponse(sequence=sequence)

    def AppendBatch(  # noqa: N802 - the name is the wire's
        self, request: audit_pb2.AppendBatchRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AppendBatchResponse:
        raise NotImplementedError("search appends one by one")

    def GetCheckpoint(  # noqa: N802 - the name is the wire's
        self, request: audit_pb2.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> audit_pb2.Checkpoint:
        raise NotImplementedError("search never proves")

    def ProveInclusion(  # noqa: N802 - the name is the wire's
        self, request: audit_pb2.ProveInclusionRequest, context: grpc.ServicerContext
    ) -> audit_pb2.InclusionProof:
        raise NotImplementedError("search never proves")

    def ProveConsistency(  # noqa: N802 - the name is the wire's
        self, request: audit_pb2.ProveConsistencyRequest, context: grpc.ServicerContext
    ) -> audit_pb2.ConsistencyProof:
        raise NotImplementedError("search never proves")

    def ProveActivity(  # noqa: N802 - the name is the wire's
        self, request: audit_pb2.ProveActivityRequest, context: grpc.ServicerContext
    ) -> audit_pb2.ProvenActivity:
        raise NotImplementedError("proofs need the real log")

    def of(self, activity_id: str) -> list[audit_pb2.AuditEntry]:
        with self._lock:
            return [entry for entry in self.entries if entry.activity_id == activity_id]

    def phases(self, activity_id: str) -> list[str]:
        return [audit_pb2.Phase.Name(entry.phase) for entry in self.of(activity_id)]

    def searches(self) -> list[str]:
        """The ids of all searches, by their first entry."""
        with self._lock:
            return list(dict.fromkeys(entry.activity_id for entry in self.entries if entry.activity == "search"))


def _timeless(entry: audit_pb2.AuditEntry) -> bytes:
    copy = audit_pb2.AuditEntry()
    copy.CopyFrom(entry)
    copy.occurred_at = ""
    return copy.SerializeToString(deterministic=True)


class Peers:
    """The three services on ports of their own; each can be stopped and started again on the same port."""

    def __init__(self) -> None:
        self.embed = FakeEmbed()
        self.ledger = FakeLedger()
        self.audit = FakeAudit()
        # Kept from others while a peer is stopped.
        self.ports = dict(zip(("embed", "ingest", "audit"), reserve_ports("127.0.0.1", 3), strict=True))
        self._servers: dict[str, GrpcServer] = {}

    def start(self, name: str) -> None:
        register = {
            "embed": lambda server: embed_pb2_grpc.add_EmbedServicer_to_server(self.embed, server),
            "ingest": lambda server: ingest_pb2_grpc.add_LedgerServicer_to_server(self.ledger, server),
            "audit": lambda server: audit_pb2_grpc.add_AuditServicer_to_server(self.audit, server),
        }[name]
        server = GrpcServer("127.0.0.1", self.ports[name], [], register, threads=48)
        server.start()
        server.set_serving(True)
        self._servers[name] = server

    def stop(self, name: str) -> None:
        """At once: calls under way break off, as they do when a process is killed."""
        self._servers.pop(name).stop(grace_s=0.0)

    @contextmanager
    def running(self) -> Iterator[Peers]:
        for name in self.ports:
            self.start(name)
        try:
            yield self
        finally:
            for name in list(self._servers):
                self.stop(name)
