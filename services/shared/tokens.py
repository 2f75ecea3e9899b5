"""Bearer tokens: who calls, from which force, with which roles and watchlists.

Claims: `sub` (person), `force`, `roles` (list), `watchlists` (list), beside the registered iss, aud, exp, nbf, iat; and
`trained_until` (YYYY-MM-DD), the day on which the person's training lapses, of those who are trained.
Keys come from a JWKS file only: a token's own `jku`, `x5u` or `jwk` header is never followed.
"""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from services.shared.errors import Unauthenticated
from services.shared.revocations import ReadAgain, open_revocations
from services.shared.settings import TokenSettings

ALGORITHMS = ("EdDSA", "ES256", "RS256")  # asymmetric only, so a public key can never be used as a secret
MAX_TOKEN_CHARS = 8192  # a person with a dozen roles and watchlists needs under one thousand
TYPES = ("jwt", "at+jwt", "application/at+jwt")  # RFC 9068; a token without a type is taken for a JWT
MIN_RSA_BITS = 2048
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

    1. it is of a sane length and its header names a token, an allowed asymmetric algorithm, a key id in the JWKS file
       and nothing that has to be understood beside them;
    2. the key is for signatures, of that algorithm's kind, and the signature verifies with it;
    3. issuer and audience are ours; expiry and not-before hold within the leeway;
    4. person, force, roles and watchlists are there, of the right type, short and printable;
    5. neither the token nor its person has been revoked;
    6. the person signed in at the provider in one of the ways, by the methods and as lately as the settings ask.

    A key taken out of the JWKS file, or put in, and a revocation count from the next call.

    Every failure is Unauthenticated with the same words, so that a caller learns nothing from it.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        self._keys = ReadAgain(
            settings.jwks_path,
            _signing_keys,
            "token keys",
            "Point LIKENESS_<SERVICE>__TOKENS__JWKS_PATH at the issuer's JWKS file.",
        )
        path = settings.revocations_path
        self._revocations = None if path is None else open_revocations(path)

    def verify(self, token: str) -> Principal:
        try:
            if len(token) > MAX_TOKEN_CHARS:
                raise ValueError("length")  # noqa: TRY301 - all failures leave through one door
            claims = self._claims(token, self._settings.audience)
            principal = Principal(
                person_id=_person(claims),
                force=_text(claims, "force"),
                roles=_texts(claims, "roles"),
                watchlists=_texts(claims, "watchlists"),
                trained_until=_day(claims, "trained_until"),
            )
            if self._revocations is not None and self._revocations.current().covers(claims):
                raise jwt.InvalidTokenError("revoked")
            _require_sign_in(claims, self._settings)
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            structlog.get_logger().info("token_refused", reason=type(error).__name__)
            raise Unauthenticated(
                "The bearer token is missing or does not verify.",
                advice="Send `Authorization: Bearer <token>` with a current token of the configured issuer.",
            ) from error
        return principal

    def identity(self, id_token: str, client_id: str) -> Mapping[str, Any]:
        """The claims of an OpenID Connect ID token for a client of the same issuer, verified as 1, 2, 3 and 5 above.

        It says who signed in and is never a bearer token. Raises Unauthenticated.
        """
        try:
            if len(id_token) > MAX_TOKEN_CHARS:
                raise ValueError("length")  # noqa: TRY301 - all failures leave through one door
            claims = self._claims(id_token, client_id)
            _text(claims, "sub")
            if self._revocations is not None and self._revocations.current().covers(claims):
                raise jwt.InvalidTokenError("revoked")
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            structlog.get_logger().info("identity_refused", reason=type(error).__name__)
            raise Unauthenticated("The identity does not verify.", advice="Sign in again.") from error
        return claims

    def _claims(self, token: str, audience: str) -> dict[str, Any]:
        key = self._key_for(jwt.get_unverified_header(token))
        return jwt.decode(
            token,
            key=key,
            algorithms=[key.algorithm_name],
            issuer=self._settings.issuer,
            audience=audience,
            leeway=self._settings.leeway_s,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )

    def _key_for(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        key = self._keys.current()[str(header.get("kid", ""))]
        if header.get("alg") not in ALGORITHMS or header["alg"] != key.algorithm_name:
            raise jwt.InvalidAlgorithmError("algorithm")
        if "crit" in header or "b64" in header or str(header.get("typ", "JWT")).lower() not in TYPES:
            raise jwt.InvalidTokenError("header")
        return key


class WeakSignInError(jwt.InvalidTokenError):
    """A good token of somebody who did not sign in as is asked here. The caller is told as little as of any other."""


def _require_sign_in(claims: Mapping[str, Any], settings: TokenSettings) -> None:
    """What the provider does not say of a sign-in did not happen."""
    if settings.required_acr and claims.get("acr") not in settings.required_acr:
        raise WeakSignInError("acr")
    methods = claims.get("amr", ())
    if settings.required_amr and not (isinstance(methods, list) and set(settings.required_amr) <= set(methods)):
        raise WeakSignInError("amr")
    if settings.max_auth_age_s is not None:
        signed_in_at = claims.get("auth_time")
        if not isinstance(signed_in_at, int | float) or isinstance(signed_in_at, bool):
            raise WeakSignInError("auth_time")
        age_s = time.time() - signed_in_at
        if not -settings.leeway_s <= age_s <= settings.max_auth_age_s + settings.leeway_s:
            raise WeakSignInError("auth_time")


def _signing_keys(text: str) -> dict[str, jwt.PyJWK]:
    """Keys by id. A provider's file also holds keys for encryption and of other kinds; they are left out."""
    keys: dict[str, jwt.PyJWK] = {}
    try:
        for entry in json.loads(text)["keys"]:
            kid = entry["kid"]
            if kid in keys:
                raise ValueError(f"two keys have the id {kid!r}")
            key = jwt.PyJWK(entry)
            if entry.get("use", "sig") == "sig" and key.algorithm_name in ALGORITHMS and _is_long_enough(key):
                keys[kid] = key
    except jwt.PyJWTError as error:
        raise ValueError(str(error)) from error
    return keys


def _is_long_enough(key: jwt.PyJWK) -> bool:
    return not isinstance(key.key, rsa.RSAPublicKey) or key.key.key_size >= MIN_RSA_BITS


def _person(claims: dict[str, object]) -> str:
    """One spelling a person: spaces around it, or an accent apart from its letter, would make two of one."""
    person_id = _text(claims, "sub")
    if person_id != person_id.strip() or not unicodedata.is_normalized("NFC", person_id):
        raise ValueError("sub")
    return person_id


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
