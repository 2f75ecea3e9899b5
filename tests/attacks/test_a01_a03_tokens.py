"""A1, A2, A3: whoever has no good token gets 401 from every service, told nothing, and no service calls anybody."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.local.issuer import LocalIssuer
from services.shared.clock import SystemClock
from tests.attacks.outsider import Listener
from tests.attacks.scene import as_bearer, assert_tells_nothing, open_client
from tests.support.platform import Platform
from tests.support.waiting import wait_until

# A route of each service that every role may at least ask; a good token is never answered with 401.
ROUTES = {
    "search": "/v1/searches/none",
    "ingest": "/v1/enrolments",
    "audit": "/v1/audit/checkpoint",
    "review": "/v1/casework/queue",
}
REVOKED_WITHIN_S = 5.0


class Forger:
    """Makes tokens like those of the platform's issuer, and wrong ones."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        folder = platform.data.tokens
        key = serialization.load_pem_private_key((folder / "issuer-key.pem").read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        self.key = key
        self.jwks = (folder / "jwks.json").read_bytes()
        self.kid = json.loads(self.jwks)["keys"][0]["kid"]

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": "likeness-local", "aud": "likeness", "sub": "forger", "force": "northshire", "iat": now}
        claims |= {"exp": now + 600, "roles": ["operator", "custodian", "auditor"], "watchlists": ["custody"]}
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def signed(self, headers: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        return jwt.encode(
            self.claims(**changes), key or self.key, algorithm="EdDSA", headers={"kid": self.kid, **(headers or {})}
        )

    def raw(self, header: dict[str, Any], sign: Callable[[bytes], bytes] = lambda _: b"") -> str:
        body = f"{_part(header)}.{_part(self.claims())}"
        return f"{body}.{_base64url(sign(body.encode()))}"

    def mac(self, secret: bytes) -> str:
        header = {"alg": "HS256", "typ": "JWT", "kid": self.kid}
        return self.raw(header, lambda body: hmac.new(secret, body, hashlib.sha256).digest())


def _part(value: object) -> str:
    return _base64url(json.dumps(value).encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def forger(platform: Platform) -> Forger:
    return Forger(platform)


@pytest.fixture(scope="module")
def clients(platform: Platform) -> Iterator[dict[str, httpx.Client]]:
    opened = {service: open_client(platform, service) for service in ROUTES}
    yield opened
    for client in opened.values():
        client.close()


def assert_refused(clients: dict[str, httpx.Client], headers: Mapping[str, Any]) -> None:
    for service, path in ROUTES.items():
        answer = clients[service].get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), (service, answer.text)
        assert_tells_nothing(answer)


def assert_let_in(clients: dict[str, httpx.Client], token: str) -> None:
    for service, path in ROUTES.items():
        assert clients[service].get(path, headers=as_bearer(token)).status_code in {200, 404}, service


def test_a_good_token_is_let_in(clients: dict[str, httpx.Client], forger: Forger) -> None:
    assert_let_in(clients, forger.signed())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer garbage"},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": "Basic b3BlcmF0b3I6b3BlcmF0b3I="},
        {"Authorization": b"Bearer \xff\xfe"},
        {"Cookie": "token=x", "X-Forwarded-User": "local-auditor"},
        {"Authorization": "Bearer " + "x" * 9000},
    ],
    ids=lambda headers: str(headers)[:40],
)
def test_a01_no_token_or_garbage(clients: dict[str, httpx.Client], headers: dict[str, str]) -> None:
    assert_refused(clients, headers)


def test_a01_expired_or_not_yet_valid_beyond_the_leeway(clients: dict[str, httpx.Client], forger: Forger) -> None:
    now = int(time.time())
    for changes in ({"exp": now - 31}, {"nbf": now + 90}, {"iat": now + 90}, {"exp": None}, {"iat": None}):
        assert_refused(clients, as_bearer(forger.signed(**changes)))


def test_a02_wrong_audience_issuer_or_key(clients: dict[str, httpx.Client], forger: Forger) -> None:
    for changes in ({"aud": "another"}, {"aud": None}, {"iss": "likeness-locals"}, {"iss": None}, {"sub": None}):
        assert_refused(clients, as_bearer(forger.signed(**changes)))
    assert_refused(clients, as_bearer(forger.signed(key=Ed25519PrivateKey.generate())))


def test_a02_a_revoked_token_is_refused_within_five_seconds(
    platform: Platform, clients: dict[str, httpx.Client]
) -> None:
    issuer = LocalIssuer.open(platform.data.tokens, SystemClock())
    given = {"force": "northshire", "person_id": "to-be-revoked", "lifetime": timedelta(minutes=5)}
    tokens = [issuer.issue(role, ["custody"], **given) for role in ("custodian", "auditor")]  # type: ignore[arg-type]

    def statuses(token: str) -> set[int]:
        return {clients[service].get(path, headers=as_bearer(token)).status_code for service, path in ROUTES.items()}

    assert all(401 not in statuses(token) for token in tokens)
    issuer.revoke_token(tokens[0])
    wait_until(lambda: statuses(tokens[0]) == {401}, REVOKED_WITHIN_S, "the token to be refused everywhere")
    assert 401 not in statuses(tokens[1])
    issuer.revoke_person("to-be-revoked")
    wait_until(lambda: statuses(tokens[1]) == {401}, REVOKED_WITHIN_S, "all tokens of the person to be refused")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_a03_no_algorithm(clients: dict[str, httpx.Client], forger: Forger, algorithm: str) -> None:
    assert_refused(clients, as_bearer(forger.raw({"alg": algorithm, "typ": "JWT", "kid": forger.kid})))


def test_a03_the_public_key_as_a_secret(clients: dict[str, httpx.Client], forger: Forger) -> None:
    public = forger.key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    for secret in (pem, pem.strip(), raw, forger.jwks):
        assert_refused(clients, as_bearer(forger.mac(secret)))


@pytest.mark.parametrize("kid", ["../tokens/jwks.json", "/dev/null", "' OR 1=1 --", "\x00", None, 7, ["a"], {}])
def test_a03_key_ids_that_lead_elsewhere(clients: dict[str, httpx.Client], forger: Forger, kid: Any) -> None:
    header = {"alg": "EdDSA", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    assert_refused(clients, as_bearer(forger.raw(header, forger.key.sign)))


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk", "x5c"])
def test_a03_keys_that_the_token_brings(
    clients: dict[str, httpx.Client], forger: Forger, listener: Listener, header: str
) -> None:
    attacker = Ed25519PrivateKey.generate()
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(attacker.public_key(), as_dict=True)
    brought = {"jku": listener.url + "/jwks.json", "x5u": listener.url, "jwk": {**jwk, "kid": forger.kid}, "x5c": ["A"]}
    assert_refused(clients, as_bearer(forger.signed({header: brought[header]}, key=attacker)))
    assert_refused(clients, as_bearer(forger.signed({header: brought[header], "kid": "theirs"}, key=attacker)))
    assert listener.connections == 0
