"""A4: a person's token opens no port between the services, and a service only the calls that its name may make."""

from __future__ import annotations

import grpc
import pytest

from services.local.certificates import LocalAuthority
from services.local.deployment import HOST, CertificateFolder
from services.local.issuer import ROLES
from services.rpc.access import CALLERS, SERVICES
from services.rpc.clients import AuditClient
from services.rpc.mtls import host_name
from services.rpc.v1 import audit_pb2, common_pb2
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden
from services.shared.ids import new_id
from tests.attacks.scene import Scene
from tests.support.platform import Platform

HOLDERS = {"Embed": "embed", "Ledger": "ingest", "Gallery": "search", "Audit": "audit", "Review": "review"}
_DEADLINE_S = 20.0


def call(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.StatusCode:
    """The status of a call with an empty message."""
    return ask(channel, method, metadata)[0]


def ask(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[grpc.StatusCode, str]:
    """Status and words for a call with an empty message."""
    with channel:
        stub = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
        try:
            stub(b"", timeout=_DEADLINE_S, metadata=metadata)
        except grpc.RpcError as error:
            return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


def holder(method: str) -> str:
    return HOLDERS[method.split("/")[1].removeprefix("likeness.v1.")]


METHODS = sorted(method for method in CALLERS if method.split("/")[1].removeprefix("likeness.v1.") in HOLDERS)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a04_a_persons_token_opens_no_grpc_port(platform: Platform, scene: Scene, service: str) -> None:
    address = f"{HOST}:{platform.ports[service].grpc}"
    method = next(method for method in METHODS if holder(method) == service)
    authority = grpc.ssl_channel_credentials(platform.data.certificates.authority.read_bytes())
    named = (("grpc.ssl_target_name_override", host_name(service)),)
    for role in ROLES:
        metadata = (("authorization", f"Bearer {scene.token(role)}"),)
        assert call(grpc.insecure_channel(address), method, metadata) is grpc.StatusCode.UNAVAILABLE
    encrypted = grpc.secure_channel(address, authority, options=named)
    assert call(encrypted, method, metadata) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", METHODS)
def test_a04_a_service_makes_the_calls_of_its_name_and_no_other(platform: Platform, method: str) -> None:
    for caller in sorted(SERVICES):
        status, words = ask(platform.channel(holder(method), caller), method)
        is_refused = status is grpc.StatusCode.PERMISSION_DENIED and "may not call" in words
        assert is_refused == (caller not in CALLERS[method]), (caller, method, status, words)


def test_a04_embed_reads_neither_the_log_nor_the_ledger(platform: Platform) -> None:
    for method in ("/likeness.v1.Audit/GetCheckpoint", "/likeness.v1.Ledger/ReadReferences"):
        assert call(platform.channel(holder(method), "embed"), method) is grpc.StatusCode.PERMISSION_DENIED


def test_a04_no_service_writes_to_the_log_under_anothers_name(platform: Platform) -> None:
    entry = audit_pb2.AuditEntry(
        entry_id=new_id(),
        operation=audit_pb2.CONSULTATION,
        phase=audit_pb2.INTENT,
        activity_id="forged",
        activity="search",
        actor=common_pb2.Actor(person_id="somebody", force="northshire"),
        service="ingest",
        occurred_at="2026-03-01T10:00:00.000Z",
    )
    with platform.channel("audit", "search") as channel:
        with pytest.raises(Forbidden):
            AuditClient(channel).append(entry)
        with pytest.raises(Forbidden):
            AuditClient(channel).append_all([entry])
        entry.service = "search"
        AuditClient(channel).append(entry)


def test_a04_a_certificate_that_somebody_else_signed(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mine = CertificateFolder(tmp_path_factory.mktemp("theirs"))
    LocalAuthority.open(mine, SystemClock()).renew(["search"])
    credentials = grpc.ssl_channel_credentials(
        platform.data.certificates.authority.read_bytes(),
        mine.key("search").read_bytes(),
        mine.certificate("search").read_bytes(),
    )
    named = (("grpc.ssl_target_name_override", host_name("ingest")),)
    channel = grpc.secure_channel(f"{HOST}:{platform.ports['ingest'].grpc}", credentials, options=named)
    assert call(channel, "/likeness.v1.Ledger/ReadReferences") is grpc.StatusCode.UNAVAILABLE
