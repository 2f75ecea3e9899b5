"""An erasure in the audit log: its entries, and the log's proof that they are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from services.ingest.enrolling.enrolment import derived_id
from services.ingest.life.erasure import CAME_MEANWHILE, Erasure
from services.rpc.auditing import AuditRecorder, platform_principal
from services.rpc.v1 import audit_pb2
from services.shared.tokens import Principal

ERASURE = "erasure"


class AuditProver(Protocol):
    """What is needed of `services.rpc.clients.AuditClient`."""

    def checkpoint(self) -> audit_pb2.Checkpoint: ...

    def prove_inclusion(self, sequence: int, tree_size: int) -> audit_pb2.InclusionProof: ...


class AuditedErasure:
    """See services.ingest.life.erasure.ErasureProof. Entry ids are derived: written again, it is the same entry."""

    def __init__(self, recorder: AuditRecorder, prover: AuditProver) -> None:
        self._recorder = recorder
        self._prover = prover
        self._platform = platform_principal("ingest")

    def record_intent(self, erasure: Erasure) -> audit_pb2.AppendResponse:
        person = Principal(erasure.person_id, erasure.owner, frozenset({"custodian"}), frozenset())
        details = {
            "reason": erasure.reason,
            "authority": erasure.authority,
            # As it was asked for: written again at the end, it has to be the same entry.
            "enrolments": str(len(erasure.enrolment_ids) - erasure.done.get(CAME_MEANWHILE, 0)),
            "due": "at once" if not erasure.due_at_ms else f"{erasure.due_at_ms} ms",
        }
        return self._record(erasure, audit_pb2.INTENT, person, details)

    def record_outcome(
        self, erasure: Erasure, phase: audit_pb2.Phase.ValueType, details: Mapping[str, str]
    ) -> audit_pb2.AppendResponse:
        return self._record(erasure, phase, self._platform, details)

    def prove(self, sequence: int) -> tuple[audit_pb2.InclusionProof, audit_pb2.Checkpoint]:
        checkpoint = self._prover.checkpoint()
        return self._prover.prove_inclusion(sequence, checkpoint.tree_size), checkpoint

    def _record(
        self, erasure: Erasure, phase: audit_pb2.Phase.ValueType, who: Principal, details: Mapping[str, str]
    ) -> audit_pb2.AppendResponse:
        part = "intent" if phase == audit_pb2.INTENT else "outcome"
        return self._recorder.record(
            audit_pb2.ERASURE,
            phase,
            ERASURE,
            erasure.erasure_id,
            who,
            objects=[f"subject:{erasure.owner}/{erasure.subject_id}"],
            details=details,
            entry_id=derived_id(erasure.erasure_id, f"{ERASURE}/{part}"),
        )
