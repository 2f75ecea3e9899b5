"""What the ledger holds of one subject, and the ports through which a package is put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.rpc.v1 import audit_pb2, review_pb2, search_pb2

Facts = Mapping[str, Any]  # JSON: text, numbers, booleans, nothing


@dataclass(frozen=True, slots=True)
class HeldEnrolment:
    """One enrolment. `image_sha256` is empty where there never was an image; `facts` is what the subject is told."""

    enrolment_id: str
    reference_id: str
    watchlist_id: str
    image_sha256: str
    is_erased: bool
    facts: Facts


@dataclass(frozen=True, slots=True)
class SubjectFacts:
    """Everything of one subject in the ledger's store. Identifiers of other subjects and of staff are left out."""

    enrolments: Sequence[HeldEnrolment]
    custody: Sequence[Facts]
    received: Sequence[Facts]
    reviews: Sequence[Facts]
    erasures: Sequence[Facts]
    flags: Sequence[Facts]
    exports: Sequence[Facts]


class SubjectLedger(Protocol):
    """The ledger's store, as a package needs it. Raises DependencyUnavailable."""

    def facts_of(self, owner: str, subject_id: str) -> SubjectFacts:
        """Also of what was withdrawn, and the tombstones of what was erased."""
        ...


class Returns(Protocol):
    """`services.rpc.upkeep.ReturnsClient`."""

    def list_returns(self, owner: str, reference_ids: Sequence[str]) -> Sequence[search_pb2.ReturnedCandidate]:
        """Every search in whose list one of these was returned; at most 1,000 references. Raises InvalidRequest,
        DependencyUnavailable."""
        ...


class Releases(Protocol):
    """`services.rpc.upkeep.ReleasesClient`."""

    def list_releases(self, owner: str, reference_ids: Sequence[str]) -> Sequence[review_pb2.ReleasedName]:
        """Every release that named one of these; at most 1,000 references. Raises InvalidRequest,
        DependencyUnavailable."""
        ...


class Prover(Protocol):
    """The audit log's proofs; `services.rpc.clients.AuditClient`."""

    def checkpoint(self) -> audit_pb2.Checkpoint:
        """A signed checkpoint over every entry so far. Raises AuditUnavailable."""
        ...

    def prove_inclusion(self, sequence: int, tree_size: int) -> audit_pb2.InclusionProof:
        """That an entry is among the first `tree_size`. Raises AuditUnavailable."""
        ...

    def prove_activity(self, activity_id: str, case_reference: str, objects: Sequence[str]) -> audit_pb2.ProvenActivity:
        """What the log says of an act and of what it made, with proofs. Raises AuditUnavailable."""
        ...
