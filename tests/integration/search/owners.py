"""Owners who sign agreements, and a watchlist file that trusts their keys."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.search.agreements.documents import Grant, Withdrawal, sign

TODAY = datetime.now(UTC).date()


class Owner:
    """A force with a signing key of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key_id = f"{name}-1"
        self.key = Ed25519PrivateKey.generate()

    def anchor(self) -> str:
        """Its public key as the watchlist file holds it."""
        raw = self.key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return (
            f'\n[[owner_key]]\nowner = "{self.name}"\nkey_id = "{self.key_id}"\n'
            f'public_key = "{base64.b64encode(raw).decode()}"\n'
        )

    def grant(
        self, reference: str, watchlist: str = "op_liberal", *, days: int = 365, **changes: Any
    ) -> dict[str, Any]:
        """A signed grant as it is sent."""
        fields: dict[str, Any] = {
            "reference": reference,
            "watchlist": watchlist,
            "owner": self.name,
            "signed_on": TODAY - timedelta(days=1),
            "expires_on": TODAY + timedelta(days=days),
        }
        return signed(Grant(**{**fields, **changes}), self)

    def withdrawal(self, reference: str, watchlist: str = "op_liberal", on: date = TODAY) -> dict[str, Any]:
        """The signature of a withdrawal as it is sent."""
        document = Withdrawal(reference=reference, watchlist=watchlist, owner=self.name, withdrawn_on=on)
        return sign(document, self.key, self.key_id).model_dump()


def signed(document: Grant, signer: Owner) -> dict[str, Any]:
    signature = sign(document, signer.key, signer.key_id)
    return {"document": document.model_dump(mode="json"), "signature": signature.model_dump()}


def watchlist_file(path: Path, owners: Sequence[Owner], extra: str = "") -> Path:
    """The packaged watchlists and seed agreements, and the keys of these owners."""
    packaged = resources.files("services.shared").joinpath("watchlists.toml").read_text("utf-8")
    return replaced(path, packaged + extra + "".join(owner.anchor() for owner in owners))


def replaced(path: Path, text: str) -> Path:
    """Written beside and put in its place: a service that reads the file at that moment sees the one or the other."""
    whole = path.with_name(f"{path.name}.new")
    whole.write_text(text, "utf-8")
    return whole.replace(path)
