"""Bearer tokens: who calls, from which force, with which roles and watchlists.

Claims: `sub` (person), `force`, `roles` (list), `watchlists` (list), beside the registered iss, aud, exp, nbf, iat; and
`trained_until` (YYYY-MM-DD), the day on which the person's training lapses, of those who are trained.
Keys come from a JWKS file only: a token's own `jku`, `x5u` or `jwk` header is never followed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Lock

import jwt

from services.shared.errors import ConfigurationError, Unauthenticated
from services.shared.settings import TokenSettings

ALGORITHMS = ("EdDSA", "ES256", "RS256")  # asymmetric only, so a public key can never be used as a secret
MAX_TOKEN_CHARS = 8192  # a person with a dozen roles and watchlists needs under one thousand
MAX_CLAIM_CHARS = 128  # identifiers end in audit entries and answers


@dataclass(frozen=True, slots=True)
class Principal:
    """The verified caller. `person_id` is an identifier, not a name; `trained_until` None who is not trained."""

    person_id: str
    force: str
    roles: frozenset[str]
    watchlists: frozenset[str]
    trained_until: date | None = None


class TokenVerifier:
    """Verifies compact JWTs:

    1. it is of a sane length and its header names an allowed asymmetric algorithm and a key id in the JWKS file;
    2. the key is of that algorithm's kind and the signature verifies with it;
    3. issuer and audience are ours; expiry and not-before hold within the leeway;
    4. person, force, roles and watchlists are there, of the right type, short and printable.

    A key taken out of the JWKS file, or put in, counts from the next call.

    Every failure is Unauthenticated with the same words, so that a caller learns nothing from it.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, jwt.PyJWK] = {}

    def verify(self, token: str) -> Principal:
        try:
            if len(token) > MAX_TOKEN_CHARS:
                raise ValueError("length")  # noqa: TRY301 - all failures leave through one door
            header = jwt.get_unverified_header(token)
            key = self._key(str(header.get("kid", "")))
            if header.get("alg") not in ALGORITHMS or header["alg"] != key.algorithm_name:
                raise jwt.InvalidAlgorithmError("algorithm")
            claims = jwt.decode(
                token,
                key=key,
                algorithms=[key.algorithm_name],
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=self._settings.leeway_s,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
            return Principal(
                person_id=_text(claims, "sub"),
                force=_text(claims, "force"),
                roles=_texts(claims, "roles"),
                watchlists=_texts(claims, "watchlists"),
                trained_until=_day(claims, "trained_until"),
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unauthenticated(
                "The bearer token is missing or does not verify.",
                advice="Send `Authorization: Bearer <token>` with a current token of the configured issuer.",
            ) from error

    def _key(self, kid: str) -> jwt.PyJWK:
        with self._lock:
            self._reload()
            return self._keys[kid]

    def _reload(self) -> None:
        path: Path = self._settings.jwks_path
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            document = json.loads(path.read_text("utf-8"))
            self._keys = {entry["kid"]: jwt.PyJWK(entry) for entry in document["keys"]}
            self._stamp = stamp
        except (OSError, ValueError, KeyError, jwt.PyJWTError) as error:
            raise ConfigurationError(
                f"token keys cannot be read from {path}: {error}",
                advice="Point LIKENESS_<SERVICE>__TOKENS__JWKS_PATH at the issuer's JWKS file.",
            ) from error


def _text(claims: dict[str, object], name: str) -> str:
    return _printable(claims[name])


def _texts(claims: dict[str, object], name: str) -> frozenset[str]:
    values = claims[name]
    if not isinstance(values, list):
        raise TypeError(name)
    return frozenset(_printable(value) for value in values)


def _day(claims: dict[str, object], name: str) -> date | None:
    value = claims.get(name)
    if value is None:
        return None
    day = date.fromisoformat(_printable(value))
    if day.isoformat() != value:
        raise ValueError(name)
    return day


def _printable(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CLAIM_CHARS or not value.isprintable():
        raise ValueError("claim")
    return value
