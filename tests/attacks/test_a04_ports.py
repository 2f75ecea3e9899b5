"""A4: a person's token opens no port between the services, and a service only the calls that its name may make."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from services.local.certificates import LocalAuthority
from services.local.deployment import HOST, CertificateFolder
from services.local.issuer import ROLES
from services.local.supervisor import renew_certificates
from services.rpc.access import CALLERS, SERVICES
from services.rpc.clients import AuditClient, open_channel
from services.rpc.mtls import host_name
from services.rpc.v1 import audit_pb2, common_pb2
from services.shared.clock import SystemClock
from services.shared.errors import Forbidden
from services.shared.ids import new_id
from tests.attacks.scene import Scene, as_bearer, open_client, picture
from tests.support.casework import post_search
from tests.support.platform import Platform

HOLDERS = {
    **{"Embed": "embed", "Films": "embed", "Pictures": "embed", "Ledger": "ingest", "References": "ingest"},
    **{"Migrations": "ingest", "Models": "search", "Unsolved": "search", "Probes": "search"},
    **{"Gallery": "search", "Identification": "search", "Agreements": "search", "Audit": "audit", "Review": "review"},
}
# What an empty message sets off is not for a test of who may.
_STARTS_WORK = {"/likeness.v1.Gallery/RebuildGallery"}
_DEADLINE_S = 60.0


def call(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.StatusCode:
    """The status of a call with an empty message."""
    return ask(channel, method, metadata)[0]


def ask(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[grpc.StatusCode, str]:
    """Status and words for a call with an empty message."""
    stub = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
    try:
        stub(b"", timeout=_DEADLINE_S, metadata=metadata)
    except grpc.RpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""


class Channels:
    """One channel for each caller and callee, opened when it is first needed."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._open: dict[tuple[str, str], grpc.Channel] = {}

    def to(self, callee: str, caller: str) -> grpc.Channel:
        if (callee, caller) not in self._open:
            address = f"{HOST}:{self._platform.ports[callee].grpc}"
            self._open[callee, caller] = open_channel(address, self._platform.tls(caller), callee)
        return self._open[callee, caller]

    def close(self) -> None:
        for channel in self._open.values():
            channel.close()


@pytest.fixture(scope="module")
def channels(platform: Platform) -> Iterator[Channels]:
    opened = Channels(platform)
    yield opened
    opened.close()


def holder(method: str) -> str:
    return HOLDERS[method.split("/")[1].removeprefix("likeness.v1.")]


METHODS = sorted(method for method in CALLERS if method.startswith("/likeness."))


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_a04_a_persons_token_opens_no_grpc_port(platform: Platform, scene: Scene, service: str) -> None:
    address = f"{HOST}:{platform.ports[service].grpc}"
    method = next(method for method in METHODS if holder(method) == service)
    authority = grpc.ssl_channel_credentials(platform.data.certificates.authority.read_bytes())
    named = (("grpc.ssl_target_name_override", host_name(service)),)
    for role in ROLES:
        metadata = (("authorization", f"Bearer {scene.token(role)}"),)
        with grpc.insecure_channel(address) as plain:
            assert call(plain, method, metadata) is grpc.StatusCode.UNAVAILABLE
    with grpc.secure_channel(address, authority, options=named) as encrypted:
        assert call(encrypted, method, metadata) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("method", METHODS)
def test_a04_a_service_makes_the_calls_of_its_name_and_no_other(channels: Channels, method: str) -> None:
    for caller in sorted(SERVICES - (CALLERS[method] if method in _STARTS_WORK else set())):
        status, words = ask(channels.to(holder(method), caller), method)
        is_refused = status is grpc.StatusCode.PERMISSION_DENIED and "may not call" in words
        assert is_refused == (caller not in CALLERS[method]), (caller, method, status, words)


def test_a04_embed_reads_neither_the_log_nor_the_ledger(channels: Channels) -> None:
    for method in ("/likeness.v1.Audit/GetCheckpoint", "/likeness.v1.Ledger/ReadReferences"):
        assert call(channels.to(holder(method), "embed"), method) is grpc.StatusCode.PERMISSION_DENIED


def test_a04_no_service_writes_to_the_log_under_anothers_name(channels: Channels) -> None:
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
    search = AuditClient(channels.to("audit", "search"))
    with pytest.raises(Forbidden):
        search.append(entry)
    with pytest.raises(Forbidden):
        search.append_all([entry])
    entry.service = "search"
    search.append(entry)


def served(platform: Platform, service: str) -> tuple[bytes, str | None]:
    """The certificate that a service shows to a peer now (DER), and the version of TLS that was agreed on."""
    folder = platform.data.certificates
    context = ssl.create_default_context(cafile=str(folder.authority))
    context.load_cert_chain(folder.certificate("search"), folder.key("search"))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((HOST, platform.ports[service].grpc), timeout=_DEADLINE_S) as plain,
        context.wrap_socket(plain, server_hostname=host_name(service)) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b"", secured.version()


def test_a04_a_renewed_certificate_is_the_one_that_counts(platform: Platform, scene: Scene) -> None:
    """As the supervisor does it every twelve hours: nobody is started again, and searches go on."""
    before = {service: served(platform, service) for service in sorted(SERVICES)}
    renew_certificates(platform.data, SystemClock())
    for service, (certificate, version) in before.items():
        pem = platform.data.certificates.certificate(service).read_bytes()
        kept = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        assert served(platform, service)[0] == kept != certificate, service
        assert version == "TLSv1.3"
    with open_client(platform, "search", **as_bearer(scene.token("operator"))) as client:
        for seed in range(40, 43):
            assert post_search(client, picture(seed)).status_code == 200


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
    with grpc.secure_channel(f"{HOST}:{platform.ports['ingest'].grpc}", credentials, options=named) as channel:
        assert call(channel, "/likeness.v1.Ledger/ReadReferences") is grpc.StatusCode.UNAVAILABLE
