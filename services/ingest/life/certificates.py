"""The certificate of an erasure: what was erased, where, by whom and why, with the audit log's own proof, signed.

It is canonical JSON (RFC 8785): `{"certificate": {…}, "signature": {"key_id", "algorithm", "value"}}`, signed with
Ed25519 over the canonical bytes of `certificate`. `verify_certificate` needs nothing but the public key.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from services.ingest.life.erasure import ErasedRow, Erasure
from services.rpc.v1 import audit_pb2
from services.shared.canonical import canonical_bytes
from services.shared.clock import rfc3339
from services.shared.errors import ConfigurationError, IntegrityError

FORMAT = "likeness-erasure-certificate/1"
_KEPT = (
    "The audit log keeps who erased what, when and why, as the law requires; it holds no image and no template.",
    "A tombstone (owner, subject, SHA-256 of each image) is kept, so that a replay or a restored backup brings "
    "nothing back.",
    "Probes, which were submitted in cases, are kept and erased by the retention of their cases.",
    "Candidate lists of earlier searches keep the identifiers that they disclosed, for disclosure to the defence.",
    "Where gallery, ledger or topics are on servers of their own (Milvus, PostgreSQL, Kafka), bytes of what was "
    "removed may lie in those servers' logs and free pages, out of reach of any query, until their retention ends.",
)
_BACKUPS = (
    "Images and templates in backups are sealed under keys that no longer exist; the master key was changed, so that "
    "backups of the key table open nothing either."
)
_PLAIN_BACKUPS = "Images are not sealed on this platform (no key table): backups have to be erased by their operators."


class CertificateSigner:
    """Signs with one Ed25519 key of its own."""

    def __init__(self, path: Path | None) -> None:
        """The key of a PKCS #8 PEM file, made when there is none; for None one that ends with the process.

        Raises ConfigurationError.
        """
        try:
            key = Ed25519PrivateKey.generate() if path is None else _read_key(path)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(
                f"the key for certificates {path} cannot be read: {error}",
                advice="Point LIKENESS_INGEST__LIFE__CERTIFICATE_KEY_PATH at an Ed25519 key in PKCS #8 PEM form.",
            ) from error
        if path is None:
            structlog.get_logger().warning("certificates_with_passing_key", setting="LIFE__CERTIFICATE_KEY_PATH")
        self._key = key
        self.public_key_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, body: Mapping[str, Any]) -> str:
        signature = self._key.sign(canonical_bytes(dict(body)))
        document = {
            "certificate": dict(body),
            "signature": {
                "algorithm": "Ed25519",
                "key_id": _key_id(self._key.public_key()),
                "value": signature.hex(),
            },
        }
        return canonical_bytes(document).decode("utf-8")


def certificate_body(
    erasure: Erasure,
    rows: Sequence[ErasedRow],
    entries: Mapping[str, tuple[audit_pb2.AppendResponse, audit_pb2.InclusionProof]],
    checkpoint: audit_pb2.Checkpoint,
    *,
    is_sealed: bool,
    now_ms: int,
) -> dict[str, Any]:
    """What is certified. `entries`: intent and outcome of the audit log, each with its proof under the checkpoint."""
    return {
        "format": FORMAT,
        "erasure_id": erasure.erasure_id,
        "owner": erasure.owner,
        "subject_id": erasure.subject_id,
        "scope": "subject" if erasure.is_whole_subject else "enrolments",
        "reason": erasure.reason,
        "authority": erasure.authority,
        "requested_by": erasure.person_id,
        "requested_at": _time(erasure.requested_at_ms),
        "finished_at": _time(now_ms),
        "references": [
            {"reference_id": row.reference_id, "watchlist": row.watchlist_id, "image_sha256": row.image_sha256}
            for row in sorted(rows, key=lambda row: row.reference_id)
        ],
        "stores": dict(sorted(erasure.done.items())),
        "backups": _BACKUPS if is_sealed else _PLAIN_BACKUPS,
        "kept": list(_KEPT),
        "audit": {
            "entries": {
                name: {
                    "sequence": appended.sequence,
                    "leaf_hash": appended.leaf_hash.hex(),
                    "path": [step.hex() for step in proof.path],
                }
                for name, (appended, proof) in entries.items()
            },
            "checkpoint": {
                "log_id": checkpoint.log_id,
                "tree_size": checkpoint.tree_size,
                "root_hash": checkpoint.root_hash.hex(),
                "created_at": checkpoint.created_at,
                "key_id": checkpoint.key_id,
                "signature": checkpoint.signature.hex(),
            },
        },
    }


def verify_certificate(document: str | bytes, public_key_pem: bytes) -> dict[str, Any]:
    """The certified facts, after these checks, each of which raises IntegrityError:

    1. it has the one canonical form, and the format is known;
    2. the signature is the key's;
    3. each audit entry named is in the tree whose root the checkpoint states (RFC 9162, 2.1.3.2).

    Not proven: that the checkpoint is the log's. `likeness audit verify` compares it with the log and its witness.
    """
    body = verify_signed(document, public_key_pem, FORMAT)
    try:
        checkpoint, entries = body["audit"]["checkpoint"], body["audit"]["entries"]
        missing = [name for name, entry in entries.items() if not leads_to_root(entry, checkpoint)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError("That is no certificate of an erasure.") from error
    if missing:
        raise IntegrityError(f"The audit entry `{missing[0]}` is not in the tree that the checkpoint states.")
    return body


def verify_signed(document: str | bytes, public_key_pem: bytes, format_id: str) -> dict[str, Any]:
    """The facts of a document that `CertificateSigner` signed: steps 1 and 2 above. Raises IntegrityError."""
    text = document.encode() if isinstance(document, str) else document
    try:
        value = json.loads(text)
        body, signature = value["certificate"], value["signature"]
        is_canonical = canonical_bytes(value) == text.strip() and body["format"] == format_id
        key = load_pem_public_key(public_key_pem)
        signed, key_id = bytes.fromhex(signature["value"]), signature["key_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"That is no document of the format {format_id}.") from error
    if not is_canonical:
        raise IntegrityError("The certificate is not in its canonical form.")
    if not isinstance(key, Ed25519PublicKey) or key_id != _key_id(key):
        raise IntegrityError("The certificate was signed with another key.")
    try:
        key.verify(signed, canonical_bytes(body))
    except InvalidSignature as error:
        raise IntegrityError("The signature of the certificate is not valid.") from error
    facts: dict[str, Any] = body
    return facts


def leads_to_root(entry: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> bool:
    """Whether an entry's inclusion path leads to the checkpoint's root. Raises ValueError, KeyError, TypeError."""
    root = _root_of(entry, checkpoint["tree_size"])
    return root is not None and root.hex() == checkpoint["root_hash"]


def _root_of(entry: Mapping[str, Any], tree_size: int) -> bytes | None:
    """The root that an inclusion path leads to; None when the path does not fit the tree."""
    node, last = int(entry["sequence"]), tree_size - 1
    if not 0 <= node <= last:
        return None
    found = bytes.fromhex(entry["leaf_hash"])
    for step in (bytes.fromhex(text) for text in entry["path"]):
        if last == 0:
            return None
        if node & 1 or node == last:
            found = hashlib.sha256(b"\x01" + step + found).digest()
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + step).digest()
        node, last = node >> 1, last >> 1
    return found if last == 0 else None


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _read_key(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        _make_key(path)
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"the key for certificates {path} is not an Ed25519 key")
    return key


def _make_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def _time(moment_ms: int) -> str:
    return rfc3339(datetime.fromtimestamp(moment_ms / 1000, UTC))
