"""The port to where sessions stand, and how what they hold is sealed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.shared.people import one_spelling

_NONCE_BYTES = 12


class Ended(StrEnum):
    """Why a session is over, for its person to read at the sign-in."""

    IDLE = "idle"
    AGE = "age"
    # The same person signed in at another browser.
    ELSEWHERE = "elsewhere"
    # Its person ended it from another session.
    CLOSED = "closed"
    # What it acted with no longer holds: run out and not renewed, a key withdrawn, the person revoked.
    ACCESS = "access"


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as it is stored: found by the SHA-256 of its cookie, its tokens opened by the cookie alone."""

    key: str
    # Whose it is, as `owner_of` names them.
    person_id: str
    started_at: datetime
    seen_at: datetime
    sealed: bytes
    # For its person to see: the address and the browser that it was begun from, and the one that its sign-in ended,
    # as `Replaced` in JSON or nothing.
    address: str = ""
    agent: str = ""
    replaced: str = ""


class SessionStore(Protocol):
    """Sessions that outlive the process and are the same for every replica. Safe for many threads; durable.

    All raise DependencyUnavailable. Contract tests: tests/contract/test_session_store.py.
    """

    def begin(self, session: StoredSession) -> None:
        """Store a new session and end every other one of the same person (`Ended.ELSEWHERE`)."""
        ...

    def find(self, key: str) -> StoredSession | None: ...

    def of(self, person_id: str) -> Sequence[StoredSession]:
        """Everything that stands in one person's name, last used first."""
        ...

    def touch(self, key: str, seen_at: datetime) -> None:
        """It was used. Never goes back in time, and brings nothing back that has ended."""
        ...

    def reseal(self, key: str, before: bytes, after: bytes) -> bool:
        """Put renewed tokens in the place of those that were read; False where others stand there by now."""
        ...

    def end(self, key: str, why: Ended | None = None) -> None:
        """Without `why` nothing is remembered of it."""
        ...

    def why_ended(self, key: str) -> Ended | None:
        """None where it stands, was never there, or ended so long ago that nothing is kept of it."""
        ...

    def end_before(self, seen_before: datetime, started_before: datetime) -> None:
        """End what was last used (`IDLE`), or begun (`AGE`), at these moments or earlier, and forget why anything ended
        that was last used at `started_before` or earlier."""
        ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a session acts with. Without `refresh` it ends with its access token; `id_token` is for the sign-out."""

    access: str
    refresh: str = ""
    id_token: str = ""


def owner_of(force: str, person_id: str) -> str:
    """The same for one person however spelled, another for somebody of that name in another force."""
    return hashlib.sha256(f"{force}\0{one_spelling(person_id)}".encode()).hexdigest()


def key_of(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


def form_token_of(cookie: str) -> str:
    """What stands in every form of the session. Whoever knows the cookie knows it; nobody else."""
    return base64.urlsafe_b64encode(_derived(cookie, b"form")).rstrip(b"=").decode()


def sealed(cookie: str, tokens: Tokens) -> bytes:
    """The tokens under a key that is nowhere stored: who reads the database cannot use a session."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    content = orjson.dumps([tokens.access, tokens.refresh, tokens.id_token])
    return nonce + AESGCM(_derived(cookie, b"seal")).encrypt(nonce, content, key_of(cookie).encode())


def opened(cookie: str, content: bytes) -> Tokens | None:
    """The tokens again; None where they were not sealed with this cookie."""
    try:
        plain = AESGCM(_derived(cookie, b"seal")).decrypt(
            content[:_NONCE_BYTES], content[_NONCE_BYTES:], key_of(cookie).encode()
        )
    except InvalidTag:
        return None
    return Tokens(*orjson.loads(plain))


def _derived(cookie: str, use: bytes) -> bytes:
    """The cookie is 256 random bits: a keyed hash of it is a key as good."""
    return hmac.new(cookie.encode(), b"likeness console " + use, hashlib.sha256).digest()
