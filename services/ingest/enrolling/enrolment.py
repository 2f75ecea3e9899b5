"""What an enrolment is: its command, its states and the decision about it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from services.shared.biometric import ModelProvenance
from services.shared.errors import IMAGE_REFUSALS


class EnrolmentState(StrEnum):
    """accepted → enrolled | refused | quarantined; any of them → withdrawn."""

    ACCEPTED = "accepted"
    ENROLLED = "enrolled"
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    WITHDRAWN = "withdrawn"


class Verdict(StrEnum):
    """What was decided about an image; durable before it is acted on."""

    ENROL = "enrol"
    REFUSE = "refuse"
    QUARANTINE = "quarantine"

    @property
    def state(self) -> EnrolmentState:
        return _STATE_OF[self]


_STATE_OF = {
    Verdict.ENROL: EnrolmentState.ENROLLED,
    Verdict.REFUSE: EnrolmentState.REFUSED,
    Verdict.QUARANTINE: EnrolmentState.QUARANTINED,
}

# The closed list of reasons for which an image becomes no reference: by policy or because it cannot be used.
REFUSAL_REASONS = IMAGE_REFUSALS | {"no_face_found", "several_faces", "quality_too_low", "duplicate"}

# What an owner may say of an image beside what the law wants to know; see services.ingest.life.custody.EnrolmentFacts.
IMAGE_FACTS = ("pose", "custody_reference", "capture_device", "birth_band")
POSES = ("frontal", "left_profile", "right_profile", "angled")


class Source(StrEnum):
    """The door through which an enrolment came."""

    REST = "rest"
    CLI = "cli"
    KAFKA = "kafka"
    SYNTHETIC = "synthetic"


@dataclass(frozen=True, slots=True)
class EnrolReference:
    """The command: enrol this image of this subject. `captured_on` is an ISO 8601 date.

    Either `image` holds the bytes or `image_sha256` names bytes that the image store already has. `said`: what the
    owner says of the image beside that, by the names of IMAGE_FACTS.
    """

    watchlist_id: str
    owner: str
    subject_id: str
    lawful_basis: str
    captured_on: str
    agreement_reference: str = ""
    image: bytes | None = None
    image_sha256: str = ""
    said: Mapping[str, str] = field(default_factory=dict)
    # Milliseconds since 1970, where the sender says when it occurred (0: asked for, and not said); else the day counts.
    occurred_at_ms: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the image."""
        return self.image_sha256 if self.image is None else hashlib.sha256(self.image).hexdigest()


@dataclass(frozen=True, slots=True)
class EnrolmentKey:
    """What makes two enrolments the same one."""

    watchlist_id: str
    owner: str
    subject_id: str
    image_sha256: str
    model_id: str


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's own key and the digest of what was asked for under it."""

    scope: str
    key: str
    request_digest: str


@dataclass(frozen=True, slots=True)
class NewEnrolment:
    """A checked enrolment on its way into the ledger."""

    enrolment_id: str
    reference_id: str
    key: EnrolmentKey
    lawful_basis: str
    captured_on: str
    agreement_reference: str
    source: Source
    person_id: str
    force: str
    accepted_at_ms: int
    idempotency: IdempotencyKey | None = None
    # The trace that it was accepted in (services/shared/tracing.py); empty where there was none.
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The ledger's answer: which enrolment it is, where it stands, and whether this call made it."""

    enrolment_id: str
    state: EnrolmentState
    is_new: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict about one image, with what it was decided on. `template`: float32 little endian, for ENROL only."""

    verdict: Verdict
    decided_at_ms: int
    reason: str = ""
    detail: str = ""
    template: bytes = b""
    model: ModelProvenance | None = None
    unified_quality: float | None = None
    quality_components: Mapping[str, float] = field(default_factory=dict)
    inter_eye_px: float | None = None


@dataclass(frozen=True, slots=True)
class PendingEnrolment:
    """An accepted enrolment that this process has claimed. `decision` is set once it is durable."""

    enrolment_id: str
    reference_id: str
    key: EnrolmentKey
    version: int
    source: Source
    crashes: int
    decision: Decision | None = None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class PendingWithdrawal:
    """A tombstone whose reference may still stand in the gallery."""

    enrolment_id: str
    reference_id: str
    watchlist_id: str
    owner: str
    subject_id: str
    version: int
    reason: str
    withdrawn_at_ms: int
    was_enrolled: bool


@dataclass(frozen=True, slots=True)
class EnrolmentOutcome:
    """Where an enrolment stands, in short."""

    enrolment_id: str
    state: EnrolmentState
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class EnrolmentView:
    """What a custodian may see of an enrolment: never the template."""

    enrolment_id: str
    reference_id: str
    watchlist_id: str
    owner: str
    subject_id: str
    lawful_basis: str
    captured_on: str
    agreement_reference: str
    image_sha256: str
    state: EnrolmentState
    reason: str
    detail: str
    unified_quality: float | None
    quality_components: Mapping[str, float]
    inter_eye_px: float | None
    model_id: str
    licence: str
    source: str
    accepted_at_ms: int
    settled_at_ms: int | None


def derived_id(base_id: str, label: str) -> str:
    """A UUIDv7 that depends on another id and a label alone: the same after a crash, so that writing it again is no
    second entry or event. The time of the base id stays in front."""
    base = UUID(base_id).int
    random = int.from_bytes(hashlib.sha256(f"{base_id}/{label}".encode()).digest()[:10], "big")
    value = (base >> 80 << 80) | (random & ((1 << 80) - 1))
    value = (value & ~(0xF << 76)) | (7 << 76)  # version 7
    value = (value & ~(0x3 << 62)) | (2 << 62)  # RFC 9562 variant
    return str(UUID(int=value))
