"""A revoked token is refused from the next call on, and a list that cannot be read lets nobody in."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from services.shared.errors import ConfigurationError, Unauthenticated
from services.shared.revocations import Revocations, parse_revocations
from services.shared.tokens import TokenVerifier
from tests.unit.shared.issuer import KEY_ID, Issuer


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    listed = tmp_path / "revocations.json"
    listed.write_bytes(Revocations().as_json())
    return listed


@pytest.fixture
def verifier(issuer: Issuer, path: Path) -> TokenVerifier:
    return TokenVerifier(issuer.settings.model_copy(update={"revocations_path": path}))


def refused(verifier: TokenVerifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except Unauthenticated:
        return True
    return False


def test_one_token_by_its_id(issuer: Issuer, verifier: TokenVerifier, path: Path) -> None:
    mine, other = issuer.token(jti="t-1"), issuer.token(jti="t-2")
    assert not refused(verifier, mine)
    path.write_bytes(Revocations(tokens={"t-1": int(time.time()) + 600}).as_json())
    assert refused(verifier, mine)
    assert not refused(verifier, other)
    assert not refused(verifier, issuer.token())


def test_every_token_of_a_person_that_was_issued_until_then(
    issuer: Issuer, verifier: TokenVerifier, path: Path
) -> None:
    now = int(time.time())
    path.write_bytes(Revocations(persons={"op-7": now - 10}).as_json())
    assert refused(verifier, issuer.token(iat=now - 60, jti="t-1"))
    assert refused(verifier, issuer.token(iat=now - 10))
    assert not refused(verifier, issuer.token(iat=now - 9))
    assert not refused(verifier, issuer.token(iat=now - 60, sub="op-8"))


def test_a_revoked_person_is_refused_in_every_spelling(issuer: Issuer, verifier: TokenVerifier, path: Path) -> None:
    now = int(time.time())
    # As a file says that was written by hand, or on a machine that takes accents apart.
    path.write_text(json.dumps({"tokens": {}, "persons": {"Rene\u0301": now, "Op-7": now - 99, "op-7": now}}))
    for spelled in ("Ren\u00e9", "ren\u00e9", "op-7", "OP-7"):
        assert refused(verifier, issuer.token(iat=now - 60, sub=spelled))
    assert not refused(verifier, issuer.token(iat=now - 60, sub="rene"))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"tokens": {}}',
        '{"tokens": [], "persons": {}}',
        '{"tokens": {"a": "x"}, "persons": {}}',
    ],
)
def test_a_list_that_cannot_be_read_lets_nobody_in(
    issuer: Issuer, verifier: TokenVerifier, path: Path, text: str | None
) -> None:
    token = issuer.token()
    assert not refused(verifier, token)
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError):
        verifier.verify(token)
    path.write_bytes(Revocations().as_json())
    assert not refused(verifier, token)


def test_what_is_written_is_what_is_read() -> None:
    listed = Revocations({"t-1": 5}, {"op-7": 6})
    assert parse_revocations(listed.as_json().decode()) == listed


@pytest.mark.parametrize(
    "headers", [{"crit": ["exp"]}, {"crit": ["b64"], "b64": True}, {"typ": "dpop+jwt"}, {"typ": "logout+jwt"}]
)
def test_a_header_that_asks_for_more_than_we_understand(
    issuer: Issuer, verifier: TokenVerifier, headers: dict[str, object]
) -> None:
    assert refused(verifier, issuer.token(headers=headers))


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "AT+JWT"])
def test_types_of_access_tokens(issuer: Issuer, verifier: TokenVerifier, kind: str) -> None:
    assert not refused(verifier, issuer.token(headers={"typ": kind}))


def test_keys_that_are_not_for_signatures_or_too_short_are_left_out(issuer: Issuer, verifier: TokenVerifier) -> None:
    short = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the point
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(short.public_key(), as_dict=True)
    issuer.publish([issuer.public_jwk(), {**jwk, "kid": "short", "alg": "RS256", "use": "sig"}])
    assert not refused(verifier, issuer.token())
    forged = jwt.encode(issuer.claims(), short, algorithm="RS256", headers={"kid": "short"})
    assert refused(verifier, forged)
    issuer.publish([{**issuer.public_jwk(), "use": "enc"}])
    assert refused(verifier, issuer.token())


def test_two_keys_of_one_id_are_a_mistake_that_is_said(issuer: Issuer, verifier: TokenVerifier) -> None:
    issuer.publish([issuer.public_jwk(), issuer.public_jwk()])
    with pytest.raises(ConfigurationError, match=KEY_ID):
        verifier.verify(issuer.token())
    assert json.loads(issuer.settings.jwks_path.read_text())
