"""The key that signs tree heads."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from services.audit.verification import Checkpoint, endorsement_bytes, key_id_of
from services.shared.clock import rfc3339
from services.shared.errors import ConfigurationError


class Signer:
    """Signs checkpoints with one Ed25519 key."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        public_key = private_key.public_key()
        self.key_id = key_id_of(public_key)
        self.public_key_pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def sign(self, log_id: str, tree_size: int, root_hash: bytes, moment: datetime) -> Checkpoint:
        unsigned = Checkpoint(log_id, tree_size, root_hash, rfc3339(moment), self.key_id)
        signature = self._private_key.sign(unsigned.signed_bytes())
        return Checkpoint(log_id, tree_size, root_hash, unsigned.created_at, self.key_id, signature)

    def endorse(self, log_id: str, new_key_id: str, moment: datetime) -> bytes:
        """A document by which this key says that another follows it."""
        endorsed_at = rfc3339(moment)
        body = endorsement_bytes(log_id, self.key_id, new_key_id, endorsed_at)
        signature = self._private_key.sign(body).hex().encode()
        return b'{"endorsement":' + body + b',"signature":"' + signature + b'"}'


def endorsement_path(key_path: Path) -> Path:
    """Where the endorsement of a key by the one before it lies until the log has recorded it."""
    return key_path.with_name(key_path.name + ".endorsement.json")


def rotate_key(path: Path, log_id: str, moment: datetime) -> tuple[str, str]:
    """Replace the signing key by a new one that the old one endorses; the ids of both.

    The old private key is gone afterwards. The log records the change when the service starts the next time. Raises
    ConfigurationError; then the old key stands.
    """
    old = load_signer(path)
    private_key = Ed25519PrivateKey.generate()
    new = Signer(private_key)
    draft = path.with_name(f".{path.name}.rotated")
    try:
        draft.unlink(missing_ok=True)
        write_new_file(draft, private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        endorsement = endorsement_path(path)
        endorsement.unlink(missing_ok=True)
        write_new_file(endorsement, old.endorse(log_id, new.key_id, moment) + b"\n", 0o644)
        # The endorsement first: one of a key that is not in use is passed over, a key without one has to be given.
        draft.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"the signing key {path} cannot be replaced: {error}",
            advice="Make its folder writable; the old key stands.",
        ) from error
    return old.key_id, new.key_id


def load_signer(path: Path) -> Signer:
    """The key of a PKCS #8 PEM file. Raises ConfigurationError, also when everybody may read the file."""
    try:
        if path.stat().st_mode & 0o007:
            raise ConfigurationError(
                f"the signing key {path} is open to everybody on this machine",
                advice=f"Run `chmod 600 {path}`; if anybody else may have read it, replace it.",
            )
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"the signing key {path} cannot be read: {error}",
            advice="Point LIKENESS_AUDIT__CHECKPOINTS__SIGNING_KEY_PATH at an Ed25519 key in PKCS #8 PEM form.",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"the signing key {path} is not an Ed25519 key")
    return Signer(key)


def create_signing_key(path: Path) -> None:
    """Make a new key, durable and readable by its owner alone. Raises ConfigurationError."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new_file(path, pem, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"the signing key {path} cannot be made: {error}",
            advice="Make the folder writable, or put an Ed25519 key there.",
        ) from error


def write_new_file(path: Path, content: bytes, mode: int) -> None:
    """A file that is either whole and durable or not there. FileExistsError when there is one of that name.

    For one writing process: between two of them the second could replace the first one's file.
    """
    if path.exists():
        raise FileExistsError(path)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
