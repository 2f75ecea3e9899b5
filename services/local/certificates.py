"""The private certificate authority of a local platform, and short-lived certificates for its services.

A cluster has an authority of its own (k8s/certificates); nothing but who signs differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.local.deployment import CertificateFolder
from services.local.issuer import write_private
from services.rpc.mtls import host_name
from services.shared.clock import Clock
from services.shared.errors import ConfigurationError
from services.shared.settings import TlsSettings

# Renewed at half of it: a stolen key is of use for hours, and a clock that is a little off does no harm.
LEAF_LIFETIME = timedelta(hours=24)
RENEW_AFTER = LEAF_LIFETIME / 2
_AUTHORITY_LIFETIME = timedelta(days=730)
_AUTHORITY_RENEWED_BEFORE = timedelta(days=60)
_CLOCK_SKEW = timedelta(minutes=5)


def tls_settings(folder: CertificateFolder, service: str) -> TlsSettings:
    """What a process that is `service` needs."""
    return TlsSettings(ca_path=folder.authority, cert_path=folder.certificate(service), key_path=folder.key(service))


class LocalAuthority:
    """Signs certificates with the key of one folder. `open` makes the authority at the first start."""

    def __init__(
        self, folder: CertificateFolder, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock
    ) -> None:
        self._folder = folder
        self._key = key
        self._certificate = certificate
        self._clock = clock

    @classmethod
    def open(cls, folder: CertificateFolder, clock: Clock) -> LocalAuthority:
        """The authority of a folder; a new one when there is none or its time is nearly up. ConfigurationError."""
        folder.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            if folder.authority_key.exists():
                key, known = _load(folder)
                if known[0].not_valid_after_utc - clock.now() > _AUTHORITY_RENEWED_BEFORE:
                    return cls(folder, key, known[0], clock)
                return cls._make(folder, clock, before=known[:1])
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"The certificate authority in {folder.root} cannot be read: {error}",
                advice=f"Delete {folder.root} while the platform is stopped: a new one is made at the next start.",
            ) from error
        return cls._make(folder, clock, before=())

    @classmethod
    def _make(cls, folder: CertificateFolder, clock: Clock, before: Sequence[x509.Certificate]) -> LocalAuthority:
        made = cls._drawn(folder, clock)
        # The old one is believed as well, until what it signed has been renewed.
        made._take_over(before)
        return made

    @classmethod
    def _drawn(cls, folder: CertificateFolder, clock: Clock) -> LocalAuthority:
        """A new key and its certificate, of which nobody knows yet."""
        key = ec.generate_private_key(ec.SECP256R1())
        # gRPC takes the first authority of a certificate's issuer's name: each has a name of its own.
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        called = f"Likeness local authority {own.digest.hex()[:16]}"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
        builder = _builder(name, name, key, clock.now(), _AUTHORITY_LIFETIME)
        builder = builder.add_extension(own, critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.add_extension(_usage(signs_certificates=True), critical=True).sign(key, hashes.SHA256())
        return cls(folder, key, certificate, clock)

    def _take_over(self, before: Sequence[x509.Certificate]) -> None:
        self._publish(self._certificate, *before)
        write_private(self._folder.authority_key, _pem(self._key))

    def _publish(self, *believed: x509.Certificate) -> None:
        pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in believed)
        write_private(self._folder.authority, pem)

    def follow(self, known_everywhere: Callable[[], None]) -> LocalAuthority:
        """Another authority in this one's place, without a moment in which one service does not believe another.

        1. the new one is believed beside this one, which still signs;
        2. `known_everywhere` returns when every service has had time to read that;
        3. the new one signs, and this one is believed beside it until `drop_others`.

        Whoever calls it then renews every certificate.
        """
        following = self._drawn(self._folder, self._clock)
        self._publish(self._certificate, following._certificate)
        known_everywhere()
        following._take_over((self._certificate,))
        return following

    def drop_others(self) -> int:
        """Believe this authority alone; how many others were believed beside it."""
        others = len(x509.load_pem_x509_certificates(self._folder.authority.read_bytes())) - 1
        self._publish(self._certificate)
        return others

    def renew(self, services: Sequence[str], clients: Sequence[str] = ()) -> None:
        """A new key and certificate for each: `services` serve and call, `clients` only call."""
        for name in (*services, *clients):
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self._issue(name, key, serves=name in services)
            # The key first: readers take a pair only when it fits.
            write_private(self._folder.key(name), _pem(key))
            write_private(self._folder.certificate(name), certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(self, name: str, key: ec.EllipticCurvePrivateKey, *, serves: bool) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if serves else [])]
        builder = _builder(subject, self._certificate.subject, key, self._clock.now(), LEAF_LIFETIME)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(signer, critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host_name(name))]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load(folder: CertificateFolder) -> tuple[ec.EllipticCurvePrivateKey, list[x509.Certificate]]:
    key = serialization.load_pem_private_key(folder.authority_key.read_bytes(), password=None)
    known = x509.load_pem_x509_certificates(folder.authority.read_bytes())
    if not isinstance(key, ec.EllipticCurvePrivateKey) or known[0].public_key() != key.public_key():
        raise ValueError("the key is not that of the certificate")
    return key, known


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
