"""The partners that an administrator has configured: who they are, where they are, what each may ask of the other.

An address is taken from this file and from nowhere else: a request names a partner, never an address.
"""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Annotated, Self
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.shared.errors import ConfigurationError, InvalidRequest
from services.shared.watchlists import Identifier

_ADVICE = "Mend the partner file; docs/operations/partners.md describes it."
MAX_PARTNERS = 16  # asked at one time, each with a thread of its own


def _https(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError("an address is https://host:port, without a user, a query or a fragment")
    if parts.path not in {"", "/"}:
        raise ValueError("an address has no path")
    return text.rstrip("/")


def _public_key(text: str) -> str:
    if len(base64.b64decode(text, validate=True)) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes, in base64")
    return text


class Own(BaseModel):
    """This platform as its partners know it. Paths are relative to the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Identifier
    # The forces whose people search here: no partner may speak for them.
    forces: tuple[str, ...] = Field(min_length=1)
    # Ed25519, PEM: signs what is asked of partners.
    signing_key: Path
    # Shown to partners, whether they are called or call.
    certificate: Path
    key: Path


class Partner(BaseModel):
    """Another force's platform."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Identifier
    # Where its partner port is; without one it is not asked, it may only ask.
    address: Annotated[str, AfterValidator(_https)] | None = None
    # The DNS name in its certificate, whatever address leads to it.
    host_name: str = Field(pattern=r"^[a-z0-9.-]{1,253}$")
    # Who signs its certificate directly (PEM): its authority, or the certificate itself where that is pinned.
    ca: Path
    # What it signs its questions with.
    token_key: Annotated[str, AfterValidator(_public_key)]
    # The forces that it may speak for.
    forces: tuple[str, ...] = Field(min_length=1)
    # Watchlists of its that are asked from here; watchlists of ours that it may ask.
    ask_watchlists: tuple[Identifier, ...] = ()
    answer_watchlists: tuple[Identifier, ...] = ()
    timeout_s: float = Field(default=8.0, gt=0, le=20)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    own: Own
    partner: tuple[Partner, ...] = Field(default=(), max_length=MAX_PARTNERS)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [self.own.name, *(partner.name for partner in self.partner)]
        if len(set(names)) < len(names):
            raise ValueError("two platforms have one name")
        forces = [*self.own.forces, *(force for partner in self.partner for force in partner.forces)]
        if len(set(forces)) < len(forces):
            raise ValueError("two platforms speak for one force")
        return self


class Partners:
    """One state of the file, with the keys and certificates that it names."""

    def __init__(self, document: _Document, folder: Path) -> None:
        self.own = document.own
        self._folder = folder
        self._by_name: Mapping[str, Partner] = {partner.name: partner for partner in document.partner}
        self.signing_key = _private_key(self._at(self.own.signing_key))
        self._authorities = {
            name: tuple(x509.load_pem_x509_certificates(self._at(partner.ca).read_bytes()))
            for name, partner in self._by_name.items()
        }

    @property
    def all(self) -> tuple[Partner, ...]:
        return tuple(self._by_name.values())

    def find(self, name: str) -> Partner | None:
        return self._by_name.get(name)

    def named(self, names: tuple[str, ...]) -> tuple[Partner, ...]:
        """Raises InvalidRequest for a name that is not configured."""
        unknown = sorted(set(names) - self._by_name.keys())
        if unknown or not names:
            known = ", ".join(self._by_name) or "none"
            raise InvalidRequest(
                f"Unknown partner: {', '.join(name[:64] for name in unknown[:8])!r}." if unknown else "No partner.",
                advice=f"Name configured partners; they are: {known}.",
                context={"fields": [{"field": "partners", "problem": f"One or more of: {known}."}]},
            )
        return tuple(self._by_name[name] for name in dict.fromkeys(names))

    def certificate_paths(self) -> tuple[Path, Path]:
        """Our certificate and its key."""
        return self._at(self.own.certificate), self._at(self.own.key)

    def authority_path(self, partner: Partner) -> Path:
        return self._at(partner.ca)

    def token_key(self, partner: Partner) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(partner.token_key))

    def with_certificate(self, der: bytes) -> Partner | None:
        """The partner whose certificate this is: of its name, and signed by its authority; None for anybody else's.

        A certificate that one partner's authority signed with another partner's name is nobody's.
        """
        certificate = x509.load_der_x509_certificate(der)
        names = _dns_names(certificate)
        for partner in self.all:
            if partner.host_name in names and any(
                _is_signed_by(certificate, authority) for authority in self._authorities[partner.name]
            ):
                return partner
        return None

    def _at(self, path: Path) -> Path:
        return path if path.is_absolute() else self._folder / path


class PartnerFile:
    """The partners as they stand now: read again when the file has changed, so that one that is struck out is gone at
    once. A file that cannot be read raises ConfigurationError rather than leave yesterday's partners in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._current: Partners | None = None

    def current(self) -> Partners:
        with self._lock:
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if self._current is None or stamp != self._stamp:
                    self._current = None
                    document = _Document.model_validate(tomllib.loads(self._path.read_text("utf-8")))
                    self._current, self._stamp = Partners(document, self._path.parent), stamp
            except (OSError, ValueError, ValidationError) as error:
                raise ConfigurationError(f"The partner file {self._path}: {error}", advice=_ADVICE) from error
            return self._current


def _private_key(path: Path) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is no Ed25519 key")  # noqa: TRY004 - one family, for the file's reader
    return key


def _dns_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(found.value.get_values_for_type(x509.DNSName))


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    if certificate == authority:
        return True  # pinned
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it was not signed by this one
        return False
    return True
