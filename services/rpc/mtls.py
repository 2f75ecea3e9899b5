"""Mutual TLS between the services: certificates read from files, read again when they are renewed.

A service is who its certificate says: the one DNS name `<service>.likeness.internal` in it, signed by the platform's
own authority. The caller checks that name before it sends anything, the callee checks it on every call
(services/rpc/access.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import cast

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from services.rpc.renewing import RenewingChannel
from services.shared.errors import ConfigurationError
from services.shared.settings import TlsSettings

_DOMAIN = ".likeness.internal"
_Stamp = tuple[tuple[int, int, int], ...]


def host_name(service: str) -> str:
    """The name in a service's certificate, wherever the service runs."""
    return service + _DOMAIN


def service_named(host_names: Iterable[str]) -> str:
    """The service that a certificate with these names belongs to; empty when it names none, or several."""
    named = {name.removesuffix(_DOMAIN) for name in host_names if name.endswith(_DOMAIN)}
    return named.pop() if len(named) == 1 else ""


def caller_of(context: grpc.ServicerContext) -> str:
    """The service that makes this call, from its verified certificate; empty when it has none of ours."""
    properties = cast("dict[str, Iterable[bytes]]", context.auth_context())
    if b"ssl" not in list(properties.get("transport_security_type", ())):
        return ""
    return service_named(
        name.decode("utf-8", "replace") for name in properties.get("x509_subject_alternative_name", ())
    )


@dataclass(frozen=True, slots=True)
class _Material:
    """PEM bytes that belong together."""

    authority: bytes
    certificate: bytes
    key: bytes


class Certificates:
    """The three files of one service. Safe for several threads."""

    def __init__(self, settings: TlsSettings) -> None:
        """Raises ConfigurationError when a file is missing, or key and certificate do not belong together."""
        self._paths = settings.paths
        self._more = settings.more_ca_path
        self._lock = Lock()
        try:
            self._stamp = self._look()
            self._material = self._read()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The certificate in {settings.cert_path} cannot be used: {error}",
                advice="Point TLS__CA_PATH, TLS__CERT_PATH and TLS__KEY_PATH at PEM files that belong together.",
            ) from error

    def has_changed(self) -> bool:
        """Whether other usable certificates are there than at the last call that said so; they are taken from now on.

        Files that cannot be used, such as a certificate whose key has not been replaced yet, change nothing.
        """
        with self._lock:
            try:
                stamp = self._look()
                if stamp == self._stamp:
                    return False
                material = self._read()
            except (OSError, ValueError) as error:
                structlog.get_logger().warning("certificate_not_renewed", detail=str(error))
                return False
            self._stamp, before = stamp, self._material
            self._material = material
            return material != before

    def _look(self) -> _Stamp:
        paths = (*self._paths, self._more) if self._more is not None and self._more.exists() else self._paths
        return tuple((status.st_mtime_ns, status.st_size, status.st_ino) for status in map(Path.stat, paths))

    def _read(self) -> _Material:
        authority, certificate, key = (path.read_bytes() for path in self._paths)
        if self._more is not None and self._more.exists():
            authority = authority.rstrip(b"\n") + b"\n" + self._more.read_bytes()
        x509.load_pem_x509_certificates(authority)
        certified = x509.load_pem_x509_certificate(certificate).public_key()
        own = serialization.load_pem_private_key(key, password=None).public_key()
        if _spki(certified) != _spki(own):
            raise ValueError("the key is not that of the certificate")
        return _Material(authority, certificate, key)

    def server_credentials(self) -> grpc.ServerCredentials:
        """Callers must show a certificate of the authority; renewed files count from the next connection on."""

        def fetch() -> grpc.ServerCertificateConfiguration:
            self.has_changed()
            return self._server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(), fetch, require_client_authentication=True
        )

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        own = self._material
        return grpc.ssl_server_certificate_configuration([(own.key, own.certificate)], root_certificates=own.authority)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        own = self._material
        return grpc.ssl_channel_credentials(own.authority, own.key, own.certificate)


def _spki(key: object) -> bytes:
    public_bytes = cast("Callable[..., bytes]", key.public_bytes)  # type: ignore[attr-defined]
    return public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def secure_channel(
    address: str, settings: TlsSettings, peer: str, options: tuple[tuple[str, str | int], ...]
) -> grpc.Channel:
    """A channel to the service `peer` and to no other, whatever the address leads to. Raises ConfigurationError."""
    certificates = Certificates(settings)
    named = (*options, ("grpc.ssl_target_name_override", host_name(peer)))

    def make() -> grpc.Channel:
        return grpc.secure_channel(address, certificates.channel_credentials(), options=named)

    return RenewingChannel(make, certificates.has_changed)
