"""Sign-in at the force's identity provider: OpenID Connect Core 1.0, authorisation code with PKCE (RFC 7636).

What is left of the protocol beside verification is one redirect and one form that is posted, so no library is taken for
it: those at hand fetch keys and metadata by themselves and keep the state of a sign-in in cookies of their own, while
here keys come from the administrator's file alone, for every token of the platform.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, HttpUrl, model_validator

from services.review.console.session_store import Tokens
from services.shared.errors import DependencyUnavailable, Unauthenticated
from services.shared.tokens import TokenVerifier

CALLBACK = "/console/oidc/callback"
_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 64 * 1024
_ADVICE = "Sign in again. Where it goes on failing, tell your administrator."


class OidcSettings(BaseModel):
    """The identity provider. Its issuer and keys are those of LIKENESS_REVIEW__TOKENS__…, as for every service.

    Nothing is fetched but tokens: addresses are named here, keys lie in the JWKS file.
    """

    # Empty: there is no provider.
    client_id: str = ""
    # A file, so that it stands in no environment; none for a public client.
    client_secret_path: Path | None = None
    authorization_url: HttpUrl | None = None
    token_url: HttpUrl | None = None
    # Where the provider's own session is ended; without it only ours is.
    end_session_url: HttpUrl | None = None
    # How browsers reach the console: the redirect address is this and /console/oidc/callback.
    public_url: HttpUrl | None = None
    scope: str = "openid"

    @property
    def is_used(self) -> bool:
        return bool(self.client_id)

    @model_validator(mode="after")
    def _is_whole(self) -> OidcSettings:
        needed = (self.authorization_url, self.token_url, self.public_url)
        if self.is_used and None in needed:
            raise ValueError("client_id needs authorization_url, token_url and public_url")
        if self.is_used and "openid" not in self.scope.split():
            raise ValueError("the scope holds openid")
        return self


class SignInFlow:
    """One sign-in under way. Everything follows from one random value that only the browser's cookie holds, so that
    nothing is kept here and any replica can end it; whoever does not have that cookie cannot."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    @classmethod
    def begin(cls) -> SignInFlow:
        return cls(secrets.token_urlsafe(32))

    @property
    def state(self) -> str:
        return self._derived(b"state")

    @property
    def nonce(self) -> str:
        return self._derived(b"nonce")

    @property
    def code_verifier(self) -> str:
        return self._derived(b"verifier")

    @property
    def code_challenge(self) -> str:
        return _base64url(hashlib.sha256(self.code_verifier.encode()).digest())

    def _derived(self, use: bytes) -> str:
        return _base64url(hmac.new(self.secret.encode(), b"likeness oidc " + use, hashlib.sha256).digest())


class Oidc:
    """The console as a client of the identity provider."""

    def __init__(self, settings: OidcSettings, verifier: TokenVerifier, issuer: str) -> None:
        self._settings = settings
        self._verifier = verifier
        self._issuer = issuer
        self._client = httpx.Client(timeout=_TIMEOUT_S, trust_env=False, follow_redirects=False)

    def start(self, flow: SignInFlow) -> str:
        """Where the browser is sent."""
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._address(CALLBACK),
            "scope": self._settings.scope,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.code_challenge,
            "code_challenge_method": "S256",
        }
        return _with(str(self._settings.authorization_url), asked)

    def complete(self, flow: SignInFlow | None, answer: Mapping[str, str]) -> Tokens:
        """The tokens of a sign-in that the provider sends back. In this order:

        1. the browser is the one that began it, and the answer is to that beginning (state);
        2. it comes from our provider, where it says so (RFC 9207), and is no refusal;
        3. the code is exchanged with the verifier that only this flow knows (PKCE);
        4. the ID token verifies with a key of the file: issuer, audience, expiry; it is for this flow (nonce) and this
           client (azp), and binds the access token (at_hash, where it is there);
        5. the access token verifies as every bearer token does, and is the same person's.

        Raises Unauthenticated, DependencyUnavailable (the provider does not answer).
        """
        if flow is None or not hmac.compare_digest(answer.get("state", "").encode(), flow.state.encode()):
            raise _refused("The sign-in was not begun in this browser, or took too long.")
        if answer.get("iss", self._issuer) != self._issuer:
            raise _refused("The answer is not from the configured identity provider.")
        if "error" in answer or not answer.get("code"):
            raise _refused("The identity provider did not sign you in.")
        tokens = self._asked(
            {
                "grant_type": "authorization_code",
                "code": answer["code"],
                "redirect_uri": self._address(CALLBACK),
                "code_verifier": flow.code_verifier,
            }
        )
        claims = self._identity(tokens)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), flow.nonce.encode()):
            raise _refused("The identity is not of this sign-in.")
        self._require_same_person(tokens, claims)
        return tokens

    def renew(self, tokens: Tokens) -> Tokens:
        """New tokens for a refresh token. What the provider leaves out stays as it was (RFC 6749, section 6).

        Raises Unauthenticated, DependencyUnavailable.
        """
        fresh = self._asked({"grant_type": "refresh_token", "refresh_token": tokens.refresh})
        if fresh.id_token:
            self._require_same_person(fresh, self._identity(fresh))
        return Tokens(fresh.access, fresh.refresh or tokens.refresh, fresh.id_token or tokens.id_token)

    def sign_out(self, id_token: str) -> str | None:
        """Where the browser ends the provider's session too; None where the provider has no such address."""
        if self._settings.end_session_url is None or not id_token:
            return None
        asked = {
            "id_token_hint": id_token,
            "client_id": self._settings.client_id,
            "post_logout_redirect_uri": self._address("/console/sign-in"),
        }
        return _with(str(self._settings.end_session_url), asked)

    def close(self) -> None:
        self._client.close()

    def _identity(self, tokens: Tokens) -> Mapping[str, Any]:
        claims = self._verifier.identity(tokens.id_token, self._settings.client_id)
        if claims.get("azp", self._settings.client_id) != self._settings.client_id:
            raise _refused("The identity is for another client.")
        at_hash = claims.get("at_hash")
        if at_hash is not None and at_hash not in _token_hashes(tokens.access):
            raise _refused("The tokens do not belong together.")
        return claims

    def _require_same_person(self, tokens: Tokens, claims: Mapping[str, Any]) -> None:
        if self._verifier.verify(tokens.access).person_id != claims["sub"]:
            raise _refused("The tokens are of two people.")

    def _asked(self, form: Mapping[str, str]) -> Tokens:
        settings, secret = self._settings, self._secret()
        body = {**form, "client_id": settings.client_id}
        # RFC 6749, section 2.3.1: the secret in the header, both parts as in a form.
        basic = httpx.BasicAuth(_encoded(settings.client_id), _encoded(secret)) if secret is not None else None
        try:
            answer = self._client.post(
                str(settings.token_url),
                data=body,
                auth=basic or httpx.USE_CLIENT_DEFAULT,
                headers={"Accept": "application/json"},
            )
        except httpx.HTTPError as error:
            raise DependencyUnavailable(
                "The identity provider does not answer.", advice="Try again in a few seconds."
            ) from error
        if answer.status_code >= 500:
            raise DependencyUnavailable("The identity provider fails.", advice="Try again in a few seconds.")
        if answer.status_code != 200 or len(answer.content) > _MAX_ANSWER_BYTES:
            raise _refused("The identity provider did not give tokens.")
        return _tokens(answer)

    def _secret(self) -> str | None:
        path = self._settings.client_secret_path
        if path is None:
            return None
        try:
            return path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DependencyUnavailable(
                "The client's secret cannot be read.", advice="Administrators: check CONSOLE__OIDC__CLIENT_SECRET_PATH."
            ) from error

    def _address(self, path: str) -> str:
        return str(self._settings.public_url).rstrip("/") + path


def _tokens(answer: httpx.Response) -> Tokens:
    try:
        body = answer.json()
        if str(body["token_type"]).lower() != "bearer":
            raise _refused("The identity provider gave tokens of a kind that is not known.")
        return Tokens(str(body["access_token"]), str(body.get("refresh_token", "")), str(body.get("id_token", "")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused("The identity provider's answer cannot be read.") from error


def _token_hashes(token: str) -> set[str]:
    """OpenID Connect Core 3.1.3.6: the left half of the hash that the signature's algorithm uses: SHA-256 for ES256
    and RS256, SHA-512 for EdDSA."""
    content = token.encode("ascii", "replace")
    return {_base64url(hashlib.sha256(content).digest()[:16]), _base64url(hashlib.sha512(content).digest()[:32])}


def _with(address: str, asked: Mapping[str, str]) -> str:
    return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}"


def _encoded(text: str) -> str:
    return urlencode({"": text})[1:]


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _refused(detail: str) -> Unauthenticated:
    return Unauthenticated(detail, advice=_ADVICE)
