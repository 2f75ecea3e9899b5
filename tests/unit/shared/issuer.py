"""A token issuer with real keys for tests."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.shared.settings import TokenSettings

KEY_ID = "key-1"


class Issuer:
    """Signs tokens with one Ed25519 key and publishes its JWKS file."""

    def __init__(self, folder: Path, *, issuer: str = "likeness-local", audience: str = "likeness") -> None:
        self.private_key = Ed25519PrivateKey.generate()
        self.settings = TokenSettings(issuer=issuer, audience=audience, jwks_path=folder / "jwks.json")
        self.publish([self.public_jwk()])

    def public_jwk(self, kid: str = KEY_ID) -> dict[str, Any]:
        jwk: dict[str, Any] = jwt.algorithms.OKPAlgorithm.to_jwk(self.private_key.public_key(), as_dict=True)
        return {**jwk, "kid": kid, "alg": "EdDSA", "use": "sig"}

    def publish(self, keys: list[dict[str, Any]]) -> None:
        self.settings.jwks_path.write_text(json.dumps({"keys": keys}), "utf-8")

    def claims(self, **changes: object) -> dict[str, Any]:
        """Valid claims of an operator; a value of None takes a claim away."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "iat": now,
            "exp": now + 600,
            "sub": "op-7",
            "force": "northshire",
            "roles": ["operator"],
            "watchlists": ["custody", "sex_offenders", "op_liberal"],
            "trained_until": "2999-01-01",
        }
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, headers: dict[str, Any] | None = None, **changes: object) -> str:
        return jwt.encode(
            self.claims(**changes), self.private_key, algorithm="EdDSA", headers={"kid": KEY_ID, **(headers or {})}
        )
