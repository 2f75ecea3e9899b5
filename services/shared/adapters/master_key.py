"""The master key that wraps every image's own key: one small file, which is never backed up beside what it opens."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.shared.errors import ConfigurationError
from services.shared.ids import new_id

_NONCE_BYTES = 12
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class MasterKey:
    """AES-256-GCM under a name of its own."""

    key_id: str
    key: bytes

    @classmethod
    def new(cls) -> MasterKey:
        return cls(new_id(), AESGCM.generate_key(8 * KEY_BYTES))

    def wrap(self, name: str, key: bytes) -> bytes:
        """The key, readable with this master key and under this name only."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.key).encrypt(nonce, key, name.encode())

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        """Raises cryptography's InvalidTag when it was wrapped otherwise."""
        return AESGCM(self.key).decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], name.encode())


class MasterKeyFile:
    """The file with the master key in use and, for the moment of a change, the next one beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, MasterKey]:
        """By id, the newest last; empty when there is no file. Raises ConfigurationError."""
        try:
            if not self._path.exists():
                return {}
            if self._path.stat().st_mode & 0o007:
                raise ConfigurationError(
                    f"the master key {self._path} is open to everybody on this machine",
                    advice=f"Run `chmod 600 {self._path}`.",
                )
            listed = json.loads(self._text())["keys"]
            return {each["id"]: MasterKey(each["id"], base64.b64decode(each["key"])) for each in listed}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"the master key {self._path} cannot be read: {type(error).__name__}",
                advice="Put the current master key file back; without it no stored image can be opened.",
            ) from error

    def _text(self) -> str:
        """What stands in the file. Another process may overwrite the one that was just opened with zeros, as `write`
        does with what it replaced: then its successor has the name already."""
        text = self._path.read_text("utf-8")
        return self._path.read_text("utf-8") if "\0" in text else text

    def write(self, *keys: MasterKey) -> None:
        """These keys and no others, durable. What stood in the file before is overwritten first. ConfigurationError."""
        listed = [{"id": key.key_id, "key": base64.b64encode(key.key).decode("ascii")} for key in keys]
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps({"keys": listed}).encode())
                file.flush()
                os.fsync(file.fileno())
            old = self._path.open("r+b") if self._path.exists() else None
            draft.replace(self._path)
            _sync(self._path.parent)
            if old is not None:
                with old:  # still the old file, which has no name any more
                    size = os.fstat(old.fileno()).st_size
                    old.write(b"\0" * size)
                    old.flush()
                    os.fsync(old.fileno())
        except OSError as error:
            raise ConfigurationError(
                f"the master key {self._path} cannot be written: {error.strerror}",
                advice="Make its folder writable for this service alone.",
            ) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
