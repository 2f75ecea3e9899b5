"""Who may call whom, over real sockets with real certificates."""

from __future__ import annotations

import importlib
import pkgutil
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509

import services.rpc.renewing as renewing_module
from services.local.certificates import LEAF_LIFETIME, LocalAuthority, tls_settings
from services.local.deployment import CertificateFolder
from services.rpc import v1
from services.rpc.access import CALLERS, SERVICES, TOOLS
from services.rpc.clients import EmbedClient, open_channel
from services.rpc.mtls import Certificates, service_named
from services.rpc.server import GrpcServer
from services.rpc.v1 import common_pb2, embed_pb2, embed_pb2_grpc
from services.shared.clock import SystemClock
from services.shared.errors import ConfigurationError, DependencyUnavailable, Forbidden
from services.shared.settings import TlsSettings


class At:
    """A clock that stands."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return 0.0


class Embed(embed_pb2_grpc.EmbedServicer):
    def Analyse(  # noqa: N802 - named by the proto
        self, request: embed_pb2.AnalyseRequest, context: grpc.ServicerContext
    ) -> embed_pb2.AnalyseResponse:
        raise NotImplementedError

    def DescribeModel(  # noqa: N802 - named by the proto
        self, request: embed_pb2.DescribeModelRequest, context: grpc.ServicerContext
    ) -> common_pb2.ModelProvenance:
        return common_pb2.ModelProvenance(model_id="stub")


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    made = CertificateFolder(tmp_path / "tls")
    LocalAuthority.open(made, SystemClock()).renew(sorted(SERVICES), clients=(TOOLS,))
    return made


def serve(folder: CertificateFolder, name: str = "embed") -> GrpcServer:
    return serving(tls_settings(folder, name))


def serving(tls: TlsSettings) -> GrpcServer:
    server = GrpcServer(
        "127.0.0.1",
        0,
        ["likeness.v1.Embed"],
        lambda started: embed_pb2_grpc.add_EmbedServicer_to_server(Embed(), started),
        tls=tls,
    )
    server.start()
    return server


@pytest.fixture
def server(folder: CertificateFolder) -> Iterator[GrpcServer]:
    started = serve(folder)
    yield started
    started.stop(0)


def describe(server: GrpcServer, folder: CertificateFolder, caller: str) -> str:
    with open_channel(f"127.0.0.1:{server.port}", tls_settings(folder, caller), "embed") as channel:
        return EmbedClient(channel).describe_model(timeout_s=60).model_id


@pytest.mark.parametrize("caller", ["search", "ingest"])
def test_whoever_is_named_may_call(server: GrpcServer, folder: CertificateFolder, caller: str) -> None:
    assert describe(server, folder, caller) == "stub"


@pytest.mark.parametrize("caller", ["audit", "embed", TOOLS])
def test_whoever_is_not_named_may_not(server: GrpcServer, folder: CertificateFolder, caller: str) -> None:
    with pytest.raises(Forbidden) as caught:
        describe(server, folder, caller)
    assert caught.value.code == "peer_not_permitted"


def test_without_a_certificate_nothing_is_answered(server: GrpcServer, folder: CertificateFolder) -> None:
    authority = grpc.ssl_channel_credentials(folder.authority.read_bytes())
    name = (("grpc.ssl_target_name_override", "embed.likeness.internal"),)
    for channel in (
        open_channel(f"127.0.0.1:{server.port}"),
        grpc.secure_channel(f"127.0.0.1:{server.port}", authority, options=name),
    ):
        with channel, pytest.raises(DependencyUnavailable):
            EmbedClient(channel).describe_model(timeout_s=10)


def test_a_certificate_of_another_authority_is_not_believed(
    server: GrpcServer, folder: CertificateFolder, tmp_path: Path
) -> None:
    other = CertificateFolder(tmp_path / "other")
    LocalAuthority.open(other, SystemClock()).renew(["search"])
    # The impostor knows the real authority's public certificate.
    other.authority.write_bytes(folder.authority.read_bytes())
    with pytest.raises(DependencyUnavailable):
        describe(server, other, "search")


def test_an_expired_certificate_is_not_believed(server: GrpcServer, folder: CertificateFolder) -> None:
    past = At(datetime.now(UTC) - 2 * LEAF_LIFETIME)
    LocalAuthority.open(folder, past).renew(["search"])
    with pytest.raises(DependencyUnavailable):
        describe(server, folder, "search")


def test_another_service_at_the_address_is_not_spoken_to(folder: CertificateFolder) -> None:
    impostor = serve(folder, "review")
    try:
        with pytest.raises(DependencyUnavailable):
            describe(impostor, folder, "search")
    finally:
        impostor.stop(0)


def test_renewed_certificates_are_taken_up_by_both_sides(
    server: GrpcServer, folder: CertificateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewing_module, "_LOOK_EVERY_S", 0.0)
    with open_channel(f"127.0.0.1:{server.port}", tls_settings(folder, "search"), "embed") as channel:
        client = EmbedClient(channel)
        before = channel.current()  # type: ignore[attr-defined]
        assert client.describe_model(timeout_s=60).model_id == "stub"
        # Another authority altogether: neither side would believe the other's old certificate.
        folder.authority_key.unlink()
        LocalAuthority.open(folder, SystemClock()).renew(sorted(SERVICES))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.describe_model(timeout_s=60).model_id, range(40)))
        assert set(answers) == {"stub"}
        assert channel.current() is not before  # type: ignore[attr-defined]
    assert describe(server, folder, "ingest") == "stub"


def test_one_authority_follows_another_while_both_sides_go_on_calling(
    server: GrpcServer, folder: CertificateFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(renewing_module, "_LOOK_EVERY_S", 0.0)
    elsewhere = _copied(folder, tmp_path / "elsewhere")  # certificates that nobody renews at once
    with open_channel(f"127.0.0.1:{server.port}", tls_settings(folder, "search"), "embed") as channel:
        client = EmbedClient(channel)
        seen: list[str] = []

        def call() -> None:
            seen.append(client.describe_model(timeout_s=20).model_id)
            seen.append(describe(server, folder, "ingest"))  # with a connection of its own

        call()
        following = LocalAuthority.open(folder, SystemClock()).follow(call)
        call()  # what the former signed is still shown and believed
        following.renew(sorted(SERVICES))
        call()
        shutil.copy(folder.authority, elsewhere.authority)  # told of the new one, with a certificate of the former
        assert describe(server, elsewhere, "search") == "stub", "the former is believed for as long as it takes"
        assert following.drop_others() == 1
        call()
        assert set(seen) == {"stub"}
    with pytest.raises(DependencyUnavailable):
        describe(server, elsewhere, "search")


def test_an_authority_of_a_file_beside_is_believed_while_it_is_there(folder: CertificateFolder, tmp_path: Path) -> None:
    other = CertificateFolder(tmp_path / "other")
    LocalAuthority.open(other, SystemClock()).renew(["search"])
    both = tmp_path / "both.pem"
    caller = tls_settings(other, "search").model_copy(update={"more_ca_path": folder.authority})
    callee = tls_settings(folder, "embed").model_copy(update={"more_ca_path": both})
    server = serving(callee)
    try:
        with open_channel(f"127.0.0.1:{server.port}", caller, "embed") as channel, pytest.raises(DependencyUnavailable):
            EmbedClient(channel).describe_model(timeout_s=10)
        both.write_bytes(folder.authority.read_bytes() + other.authority.read_bytes())
        with open_channel(f"127.0.0.1:{server.port}", caller, "embed") as channel:
            assert EmbedClient(channel).describe_model(timeout_s=20).model_id == "stub"
    finally:
        server.stop(0)


def _copied(folder: CertificateFolder, to: Path) -> CertificateFolder:
    shutil.copytree(folder.root, to)
    return CertificateFolder(to)


def test_a_key_without_its_certificate_changes_nothing(folder: CertificateFolder) -> None:
    certificates = Certificates(tls_settings(folder, "search"))
    assert not certificates.has_changed()
    folder.key("search").write_bytes(folder.key("ingest").read_bytes())
    assert not certificates.has_changed()
    folder.certificate("search").write_bytes(folder.certificate("ingest").read_bytes())
    assert certificates.has_changed()
    assert not certificates.has_changed()


def test_files_that_do_not_fit_stop_the_start(folder: CertificateFolder) -> None:
    folder.key("search").write_bytes(folder.key("ingest").read_bytes())
    with pytest.raises(ConfigurationError, match="not that of the certificate"):
        Certificates(tls_settings(folder, "search"))
    folder.key("search").unlink()
    with pytest.raises(ConfigurationError):
        Certificates(tls_settings(folder, "search"))


def test_an_authority_near_its_end_is_followed_by_one_beside_it(folder: CertificateFolder) -> None:
    [first] = x509.load_pem_x509_certificates(folder.authority.read_bytes())
    LocalAuthority.open(folder, SystemClock())
    assert x509.load_pem_x509_certificates(folder.authority.read_bytes()) == [first]
    late = At(first.not_valid_after_utc - timedelta(days=30))
    LocalAuthority.open(folder, late)
    assert x509.load_pem_x509_certificates(folder.authority.read_bytes())[1:] == [first]


def test_keys_are_kept_from_others(folder: CertificateFolder) -> None:
    for path in folder.root.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("names", "service"),
    [
        (["search.likeness.internal"], "search"),
        (["search.likeness.internal", "search.likeness.svc"], "search"),
        (["search.likeness.internal", "audit.likeness.internal"], ""),
        (["search.likeness.internal.example.org"], ""),
        ([], ""),
    ],
)
def test_a_certificate_names_one_service_or_none(names: list[str], service: str) -> None:
    assert service_named(names) == service


def test_every_method_of_every_service_stands_in_the_table() -> None:
    names = [each.name for each in pkgutil.iter_modules(v1.__path__) if each.name.endswith("_pb2")]
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in (importlib.import_module(f"services.rpc.v1.{name}") for name in names)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    ours = {method for method in CALLERS if method.startswith("/likeness.")}
    assert ours == methods


def test_what_the_table_forbids_above_all() -> None:
    assert not any("embed" in callers for method, callers in CALLERS.items() if "/likeness." in method)
    assert CALLERS["/likeness.v1.Ledger/ReadReferences"] == {"search"}
    assert set().union(*CALLERS.values()) == SERVICES | {TOOLS}
