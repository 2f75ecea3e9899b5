"""An agreement as its owner signs it: canonical JSON and an Ed25519 signature over its bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, StringConstraints

from services.shared.canonical import canonical_bytes
from services.shared.errors import InvalidRequest
from services.shared.watchlists import Identifier, OwnerKey

FORMAT: Literal["likeness.agreement.v1"] = "likeness.agreement.v1"

# Stands in paths, audit entries and on released results.
Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Owner = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["likeness.agreement.v1"] = FORMAT
    reference: Reference
    watchlist: Identifier
    owner: Owner

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        return canonical_bytes(self.model_dump(mode="json"))


class Grant(_Document):
    """An owner consents, from one day to the day before another, that its references are searched."""

    kind: Literal["grant"] = "grant"
    signed_on: date
    expires_on: date


class Withdrawal(_Document):
    """An owner ends its consent; the day named no longer counts."""

    kind: Literal["withdrawal"] = "withdrawal"
    withdrawn_on: date


class Signature(BaseModel):
    """Base64 of the 64 bytes, and the key that made them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    signature: Annotated[str, StringConstraints(min_length=88, max_length=88)]


def sign(document: Grant | Withdrawal, key: Ed25519PrivateKey, key_id: str) -> Signature:
    return Signature(key_id=key_id, signature=base64.b64encode(key.sign(document.canonical())).decode())


def is_signed_by_owner(document: Grant | Withdrawal, signature: Signature, keys: Iterable[OwnerKey]) -> bool:
    """Whether the signature is that of one of the owner's configured keys over exactly this document."""
    for key in keys:
        if (key.owner, key.key_id) == (document.owner, signature.key_id):
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public_key))
            try:
                public.verify(base64.b64decode(signature.signature, validate=True), document.canonical())
            except (InvalidSignature, binascii.Error):
                continue
            return True
    return False


def require_signed(document: Grant | Withdrawal, signature: Signature, keys: Iterable[OwnerKey]) -> None:
    """Raises InvalidRequest `agreement_signature_invalid`."""
    if not is_signed_by_owner(document, signature, keys):
        raise InvalidRequest(
            f"The signature is not one of {document.owner} over this document.",
            advice="Sign it with `likeness agreements sign` and the owner's key, whose public half an administrator "
            "has put into the watchlist file as an `owner_key`.",
            code="agreement_signature_invalid",
        )
