"""The gRPC side: services append and fetch proofs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict

import grpc

from services.audit.activity import Endorsement, ProveActivity
from services.audit.entries import Statement
from services.audit.log import Appended, AuditLog
from services.audit.ports import PublishedKey
from services.audit.verification import KEY_ACTIVITY, Checkpoint
from services.rpc.mtls import caller_of
from services.rpc.v1 import audit_pb2, audit_pb2_grpc
from services.shared.errors import Forbidden, InvalidRequest

SERVICE_NAME = "likeness.v1.Audit"


class AuditServicer(audit_pb2_grpc.AuditServicer):
    """Thin: messages in, use cases, messages out. Errors are mapped by the server's interceptor."""

    def __init__(self, log: AuditLog, prove_activity: ProveActivity) -> None:
        self._log = log
        self._prove_activity = prove_activity

    def Append(self, request: audit_pb2.AppendRequest, context: grpc.ServicerContext) -> audit_pb2.AppendResponse:  # noqa: N802 - the stub's name
        _require_own_name(context, (request.entry,))
        return _appended_message(self._log.append(statement_from_message(request.entry)))

    def AppendBatch(  # noqa: N802 - the stub's name
        self, request: audit_pb2.AppendBatchRequest, context: grpc.ServicerContext
    ) -> audit_pb2.AppendBatchResponse:
        _require_own_name(context, request.entries)
        appended = self._log.append_all([statement_from_message(entry) for entry in request.entries])
        return audit_pb2.AppendBatchResponse(appended=[_appended_message(each) for each in appended])

    def GetCheckpoint(  # noqa: N802 - the stub's name
        self, request: audit_pb2.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> audit_pb2.Checkpoint:
        return _checkpoint_message(self._log.checkpoint(fresh=request.fresh))

    def ProveInclusion(  # noqa: N802 - the stub's name
        self, request: audit_pb2.ProveInclusionRequest, context: grpc.ServicerContext
    ) -> audit_pb2.InclusionProof:
        proof = self._log.prove_inclusion(request.sequence, request.tree_size)
        return audit_pb2.InclusionProof(
            sequence=proof.sequence,
            tree_size=proof.tree_size,
            leaf_hash=proof.leaf_hash,
            path=proof.path,
            root_hash=proof.root_hash,
        )

    def ProveConsistency(  # noqa: N802 - the stub's name
        self, request: audit_pb2.ProveConsistencyRequest, context: grpc.ServicerContext
    ) -> audit_pb2.ConsistencyProof:
        path = self._log.prove_consistency(request.first_size, request.second_size)
        return audit_pb2.ConsistencyProof(first_size=request.first_size, second_size=request.second_size, path=path)

    def ProveActivity(  # noqa: N802 - the stub's name
        self, request: audit_pb2.ProveActivityRequest, context: grpc.ServicerContext
    ) -> audit_pb2.ProvenActivity:
        proven = self._prove_activity(request.activity_id, request.case_reference, list(request.objects))
        return audit_pb2.ProvenActivity(
            entries=[
                audit_pb2.ProvenEntry(sequence=entry.sequence, canonical=entry.canonical, path=proof.path)
                for entry, proof in proven.entries
            ],
            checkpoint=_checkpoint_message(proven.checkpoint),
            keys=[_key_message(key, proven.endorsements.get(key.key_id)) for key in proven.keys],
            counted=[audit_pb2.CountedEntries(**asdict(one)) for one in proven.counted],
            counted_sha256=proven.counted_sha256,
        )


def _key_message(key: PublishedKey, endorsement: Endorsement | None) -> audit_pb2.PublicKey:
    return audit_pb2.PublicKey(
        key_id=key.key_id,
        pem=key.public_key,
        since_size=key.since_size,
        endorsement=endorsement.document.encode() if endorsement else b"",
        endorsed_by=endorsement.by if endorsement else "",
    )


def _checkpoint_message(head: Checkpoint) -> audit_pb2.Checkpoint:
    return audit_pb2.Checkpoint(
        log_id=head.log_id,
        tree_size=head.tree_size,
        root_hash=head.root_hash,
        created_at=head.created_at,
        key_id=head.key_id,
        signature=head.signature,
    )


def _require_own_name(context: grpc.ServicerContext, entries: Iterable[audit_pb2.AuditEntry]) -> None:
    """A service writes under its own name: that of its certificate, where callers have one. Which key signs, the log
    itself says and nobody else."""
    caller = caller_of(context)
    for entry in entries:
        if entry.activity == KEY_ACTIVITY:
            raise Forbidden("Entries about signing keys are the log's own.", advice="Name the activity otherwise.")
        if caller and entry.service != caller:
            raise Forbidden(
                f"`{caller}` may not write an entry of `{entry.service}`.", advice="Write under your own name."
            )


def _appended_message(appended: Appended) -> audit_pb2.AppendResponse:
    return audit_pb2.AppendResponse(
        sequence=appended.sequence, leaf_hash=appended.leaf_hash, recorded_at=appended.recorded_at
    )


def statement_from_message(entry: audit_pb2.AuditEntry) -> Statement:
    """Raises InvalidRequest for an enumeration value that this version does not know."""
    return Statement(
        entry_id=entry.entry_id,
        operation=_name(audit_pb2.Operation.Name, entry.operation),
        phase=_name(audit_pb2.Phase.Name, entry.phase),
        activity=entry.activity,
        activity_id=entry.activity_id,
        person_id=entry.actor.person_id,
        force=entry.actor.force,
        roles=tuple(entry.actor.roles),
        service=entry.service,
        purpose=entry.purpose,
        case_reference=entry.case_reference,
        objects=tuple(entry.objects),
        recipients=tuple(entry.recipients),
        details=dict(entry.details),
        occurred_at=entry.occurred_at,
    )


def _name(name_of: Callable[..., str], value: int) -> str:
    try:
        return name_of(value)
    except ValueError as error:
        raise InvalidRequest(
            f"Operation or phase {value} is not known.", advice="Use a value of audit.proto."
        ) from error
