"""Tokens that must not pass, named after the attack, and those that must."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.shared.errors import ConfigurationError, Unauthenticated
from services.shared.tokens import MAX_TOKEN_CHARS, Principal, TokenVerifier
from tests.unit.shared.issuer import KEY_ID, Issuer


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def verifier(issuer: Issuer) -> TokenVerifier:
    return TokenVerifier(issuer.settings)


def raw(header: object, payload: object, signature: bytes = b"") -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(payload)}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def hmac_signed(issuer: Issuer, secret: bytes, algorithm: str = "HS256") -> str:
    unsigned = raw({"alg": algorithm, "typ": "JWT", "kid": KEY_ID}, issuer.claims())[:-1]
    return raw(
        {"alg": algorithm, "typ": "JWT", "kid": KEY_ID},
        issuer.claims(),
        hmac.new(secret, unsigned.encode(), hashlib.sha256).digest(),
    )


def public_bytes(issuer: Issuer, encoding: serialization.Encoding, form: serialization.PublicFormat) -> bytes:
    return issuer.private_key.public_key().public_bytes(encoding, form)


def test_a_good_token_names_the_caller(issuer: Issuer, verifier: TokenVerifier) -> None:
    assert verifier.verify(issuer.token()) == Principal(
        person_id="op-7",
        force="northshire",
        roles=frozenset({"operator"}),
        watchlists=frozenset({"custody", "sex_offenders", "op_liberal"}),
        trained_until=date(2999, 1, 1),
    )
    assert verifier.verify(issuer.token(trained_until=None)).trained_until is None


STRONG = {"acr": "phrh", "amr": ["pwd", "hwk", "mfa"]}


@pytest.mark.parametrize(
    ("said", "is_enough"),
    [
        (STRONG, True),
        ({**STRONG, "acr": "silver"}, True),
        ({}, False),
        ({**STRONG, "acr": None}, False),
        ({**STRONG, "acr": "bronze"}, False),
        ({**STRONG, "acr": ["phrh"]}, False),
        ({**STRONG, "amr": ["pwd"]}, False),
        ({**STRONG, "amr": "mfa hwk"}, False),
        ({**STRONG, "amr": [["mfa"], "hwk"]}, False),
        ({**STRONG, "amr": {"mfa": 1, "hwk": 1}}, False),
    ],
    ids=str,
)
def test_who_signed_in_too_weakly(issuer: Issuer, said: dict[str, Any], *, is_enough: bool) -> None:
    asked = {"required_acr": ("silver", "phrh"), "required_amr": ("mfa", "hwk")}
    strict = TokenVerifier(issuer.settings.model_copy(update=asked))
    token = issuer.token(**said)
    assert TokenVerifier(issuer.settings).verify(token).person_id == "op-7"  # nothing is asked by default
    if is_enough:
        assert strict.verify(token).person_id == "op-7"
        return
    with pytest.raises(Unauthenticated):
        strict.verify(token)


@pytest.mark.parametrize("age_s", [3700, -3600, None, "now", True, float("nan"), float("inf")])
def test_who_signed_in_too_long_ago_or_nobody_knows_when(issuer: Issuer, age_s: Any) -> None:
    strict = TokenVerifier(issuer.settings.model_copy(update={"max_auth_age_s": 3600}))
    at = time.time() - age_s if type(age_s) in {int, float} else age_s
    with pytest.raises(Unauthenticated):
        strict.verify(issuer.token(auth_time=at))
    assert strict.verify(issuer.token(auth_time=int(time.time()) - 1800)).person_id == "op-7"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_alg_none(issuer: Issuer, verifier: TokenVerifier, algorithm: str) -> None:
    for signature in (b"", b"x" * 64):
        with pytest.raises(Unauthenticated):
            verifier.verify(raw({"alg": algorithm, "kid": KEY_ID}, issuer.claims(), signature))


def test_hs256_signed_with_the_public_key(issuer: Issuer, verifier: TokenVerifier) -> None:
    secrets = [
        public_bytes(issuer, serialization.Encoding.Raw, serialization.PublicFormat.Raw),
        public_bytes(issuer, serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        issuer.settings.jwks_path.read_bytes(),
        issuer.public_jwk()["x"].encode(),
    ]
    for secret in secrets:
        with pytest.raises(Unauthenticated):
            verifier.verify(hmac_signed(issuer, secret))


def test_a_symmetric_key_in_the_key_file_is_not_used(issuer: Issuer, verifier: TokenVerifier) -> None:
    secret = b"s" * 32
    encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    issuer.publish([{"kty": "oct", "k": encoded, "kid": KEY_ID, "alg": "HS256"}])
    with pytest.raises(Unauthenticated):
        verifier.verify(hmac_signed(issuer, secret))


def test_another_key_under_our_key_id(issuer: Issuer, verifier: TokenVerifier) -> None:
    forged = jwt.encode(issuer.claims(), Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": KEY_ID})
    with pytest.raises(Unauthenticated):
        verifier.verify(forged)


@pytest.mark.parametrize("kid", ["key-2", "", "../../jwks.json", "key-1\x00", "key-1'--", None, 1, ["key-1"]])
def test_an_unknown_key_id(issuer: Issuer, verifier: TokenVerifier, kid: object) -> None:
    good = issuer.token().split(".")
    header = {"alg": "EdDSA", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    forged = raw(header, {}).split(".")[0]
    with pytest.raises(Unauthenticated):
        verifier.verify(".".join([forged, good[1], good[2]]))


@pytest.mark.parametrize(
    "make_key",
    [lambda: ec.generate_private_key(ec.SECP256R1()), lambda: rsa.generate_private_key(65537, 2048)],
    ids=["ES256", "RS256"],
)
def test_an_algorithm_of_another_kind_than_the_key(
    issuer: Issuer, verifier: TokenVerifier, make_key: Callable[[], Any]
) -> None:
    key = make_key()
    algorithm = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
    with pytest.raises(Unauthenticated):
        verifier.verify(jwt.encode(issuer.claims(), key, algorithm=algorithm, headers={"kid": KEY_ID}))


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk", "x5c"])
def test_a_key_that_the_token_brings_is_never_used(
    issuer: Issuer, verifier: TokenVerifier, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("an outbound connection")

    monkeypatch.setattr("socket.socket.connect", no_network)
    attacker = Ed25519PrivateKey.generate()
    jwk = jwt.algorithms.OKPAlgorithm.to_jwk(attacker.public_key(), as_dict=True)
    brought: dict[str, object] = {
        "jku": "http://127.0.0.1:9/jwks.json",
        "x5u": "http://127.0.0.1:9/cert.pem",
        "jwk": {**jwk, "kid": KEY_ID},
        "x5c": ["AAAA"],
    }
    forged = jwt.encode(issuer.claims(), attacker, algorithm="EdDSA", headers={"kid": KEY_ID, header: brought[header]})
    with pytest.raises(Unauthenticated):
        verifier.verify(forged)


def test_an_unknown_critical_header(issuer: Issuer, verifier: TokenVerifier) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(issuer.token(headers={"crit": ["must-understand"], "must-understand": True}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "someone-else"},
        {"iss": None},
        {"aud": "another-platform"},
        {"aud": None},
        {"aud": ["another-platform", "a-third"]},
        {"exp": None},
        {"exp": "never"},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 129},
        {"sub": "op-7\nrole: auditor"},
        {"sub": " op-7"},
        {"sub": "Jose\u0301"},
        {"force": None},
        {"force": ["northshire"]},
        {"roles": None},
        {"roles": "operator"},
        {"roles": [["operator"]]},
        {"watchlists": None},
        {"watchlists": "custody"},
        {"watchlists": [""]},
        {"trained_until": "for ever"},
        {"trained_until": "20990101"},
        {"trained_until": 2099},
    ],
    ids=str,
)
def test_wrong_or_missing_claims(issuer: Issuer, verifier: TokenVerifier, changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(issuer.token(**changes))


def test_expired_and_not_yet_valid_beyond_the_leeway(issuer: Issuer, verifier: TokenVerifier) -> None:
    now, leeway = int(time.time()), issuer.settings.leeway_s
    outside: list[dict[str, Any]] = [
        {"exp": now - leeway - 2},
        {"nbf": now + leeway + 300},
        {"iat": now + leeway + 300, "exp": now + 900},
        {"exp": float("inf")},
    ]
    for changes in outside:
        with pytest.raises(Unauthenticated):
            verifier.verify(issuer.token(**changes))
    assert verifier.verify(issuer.token(exp=now - leeway // 3, nbf=now + leeway // 3)).person_id == "op-7"


def test_a_changed_payload(issuer: Issuer, verifier: TokenVerifier) -> None:
    header, _, signature = issuer.token().split(".")
    changed = raw({}, issuer.claims(roles=["administrator"])).split(".")[1]
    with pytest.raises(Unauthenticated):
        verifier.verify(f"{header}.{changed}.{signature}")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a.b",
        "a.b.c",
        "....",
        "ä.ö.ü",
        "\x00",
        "x" * (MAX_TOKEN_CHARS + 1),
        base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.",
        base64.urlsafe_b64encode(b"[]").decode() + ".e30.",
    ],
    ids=lambda token: repr(token[:12]),
)
def test_garbage(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_all_refusals_say_the_same(issuer: Issuer, verifier: TokenVerifier) -> None:
    said = set()
    for token in ("", "a.b.c", issuer.token(iss="x"), issuer.token(exp=1), issuer.token(roles=None)):
        with pytest.raises(Unauthenticated) as caught:
            verifier.verify(token)
        said.add((caught.value.detail, caught.value.advice, str(caught.value.context)))
    assert len(said) == 1


def test_a_key_taken_out_of_the_file_counts_at_once(issuer: Issuer, verifier: TokenVerifier) -> None:
    token = issuer.token()
    verifier.verify(token)
    issuer.publish([{**issuer.public_jwk(), "kid": "another-key"}])
    with pytest.raises(Unauthenticated):
        verifier.verify(token)
    issuer.publish([issuer.public_jwk()])
    verifier.verify(token)


def test_a_key_file_that_cannot_be_read_lets_nobody_in(issuer: Issuer, verifier: TokenVerifier) -> None:
    token = issuer.token()
    verifier.verify(token)
    for content in (None, b"{", b'{"keys": [{"kty": "OKP"}]}', b"\xff"):
        issuer.settings.jwks_path.unlink(missing_ok=True)
        if content is not None:
            issuer.settings.jwks_path.write_bytes(content)
        with pytest.raises(ConfigurationError):
            verifier.verify(token)
