"""The token issuer of a local platform: one key, one JWKS file, ready tokens for every role.

A force with an identity provider points the services at that provider's JWKS file instead; nothing else changes.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.shared.canonical import canonical_bytes
from services.shared.clock import Clock
from services.shared.errors import ConfigurationError
from services.shared.ids import new_id
from services.shared.revocations import Revocations, open_revocations

ISSUER = "likeness-local"
AUDIENCE = "likeness"
DEVELOPMENT_FORCE = "northshire"
ROLES = ("operator", "custodian", "auditor", "supervisor", "administrator", "requester", "inspector")
# A release needs two operators; a person of a role beside `local-<role>`, with a token file of their own.
SECOND_PEOPLE = {"operator-2": "operator"}
# A shift: long enough that nobody has to fetch a token while working, short enough that a lost one dies the same day.
READY_TOKEN_LIFETIME = timedelta(hours=12)
LONGEST_LIFETIME = timedelta(days=31)
_KEPT_AFTER_EXPIRY_S = 3600  # far over the leeway that a service may grant
TRAINED_FOR = timedelta(days=365)


class LocalIssuer:
    """Signs tokens with the Ed25519 key of one data folder. `open` makes the key at the first start."""

    def __init__(self, folder: Path, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._folder = folder
        self._key = key
        self._clock = clock
        self._jwk = _public_jwk(key)

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> LocalIssuer:
        """The issuer of a tokens folder, with its key and its `jwks.json`. Raises ConfigurationError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / "issuer-key.pem"
        if not path.exists():
            write_private(path, _pem(Ed25519PrivateKey.generate()))
        issuer = cls(folder, _load(path), clock)
        # Rewritten only when it differs: services read it again whenever it changes.
        jwks = json.dumps({"keys": [issuer._jwk]}, indent=1)
        published = folder / "jwks.json"
        if not published.exists() or published.read_text("utf-8") != jwks:
            write_private(published, jwks.encode())
        if not issuer.revocations_path.exists():
            write_private(issuer.revocations_path, Revocations().as_json())
        return issuer

    @property
    def revocations_path(self) -> Path:
        return self._folder / "revocations.json"

    def revoke_token(self, token: str) -> str:
        """From now on no service accepts this token; its person. Raises ConfigurationError for one that is not ours."""
        try:
            claims = jwt.decode(
                token,
                self._key.public_key(),
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                options={"verify_exp": False, "require": ["jti", "exp", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise ConfigurationError(
                f"That is no token of this platform's issuer: {error}", advice="Give the whole token, or --person."
            ) from error
        self._revoke({str(claims["jti"]): int(claims["exp"])}, {})
        return str(claims["sub"])

    def revoke_person(self, person_id: str) -> None:
        """From now on no service accepts any token that this person holds; ones issued later count."""
        self._revoke({}, {person_id: int(self._clock.now().timestamp())})

    def _revoke(self, tokens: Mapping[str, int], persons: Mapping[str, int]) -> None:
        now = int(self._clock.now().timestamp())
        with (self._folder / ".revocations.lock").open("w") as turn:
            # Of two who revoke at once the later would otherwise write what it read before the earlier wrote.
            fcntl.flock(turn, fcntl.LOCK_EX)
            old = open_revocations(self.revocations_path).current()
            # Expired tokens are refused anyway.
            kept = {jti: expires for jti, expires in old.tokens.items() if expires + _KEPT_AFTER_EXPIRY_S > now}
            revoked = Revocations({**kept, **tokens}, {**old.persons, **persons})
            write_private(self.revocations_path, revoked.as_json())

    def issue(self, role: str, watchlists: Sequence[str], *, force: str, person_id: str, lifetime: timedelta) -> str:
        """A signed compact JWT. Raises ConfigurationError for a role or a lifetime that is not allowed."""
        if role not in ROLES:
            raise ConfigurationError(f"There is no role `{role}`.", advice=f"The roles are {', '.join(ROLES)}.")
        if not timedelta(0) < lifetime <= LONGEST_LIFETIME:
            raise ConfigurationError(
                "A token lives longer than nothing and at most 31 days.", advice="Choose another lifetime."
            )
        now = self._clock.now()
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": person_id,
            "force": force,
            "roles": [role],
            "watchlists": list(watchlists),
            "jti": new_id(),
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            # Who works on a local platform counts as trained; an identity provider says it of each person.
            "trained_until": (now + TRAINED_FOR).date().isoformat(),
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._jwk["kid"]})

    def write_ready_tokens(self, watchlists: Sequence[str]) -> None:
        """`<role>.token` for every role, of the development force, permitted every watchlist; renewed by each call."""
        for name, role in {**{role: role for role in ROLES}, **SECOND_PEOPLE}.items():
            token = self.issue(
                role,
                watchlists,
                force=DEVELOPMENT_FORCE,
                person_id=f"local-{name}",
                lifetime=READY_TOKEN_LIFETIME,
            )
            write_private(self._folder / f"{name}.token", token.encode())


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The issuer's key {path} cannot be read: {error}",
            advice="Restore it, or delete it: a new key is made, and tokens issued before stop working.",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} is no Ed25519 key.", advice="Delete it: a new key is made at the next start.")
    return key


def _public_jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(raw)}
    thumbprint = hashlib.sha256(canonical_bytes(jwk)).digest()  # RFC 7638
    return {**jwk, "kid": _base64url(thumbprint), "alg": "EdDSA", "use": "sig"}


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
