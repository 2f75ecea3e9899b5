"""Signed-in people: a bearer token exchanged for a session that this server keeps and can end at any moment."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Lock

from pydantic import BaseModel, Field

from services.shared.clock import Clock
from services.shared.errors import TooManyRequests, Unauthenticated
from services.shared.tokens import Principal

Verify = Callable[[str], Principal]
_MAX_SESSIONS = 10_000
_MAX_ADDRESSES = 10_000


class SessionSettings(BaseModel):
    """When sessions end, and how many bad sign-ins an address may make before it has to wait."""

    idle_s: float = Field(default=30 * 60, gt=0)
    # A shift: nobody stays signed in from one day to the next.
    lifetime_s: float = Field(default=12 * 3600, gt=0)
    bad_sign_ins: int = Field(default=5, ge=1)
    lock_s: float = Field(default=15 * 60, gt=0)


@dataclass(frozen=True, slots=True)
class Session:
    """One signed-in browser. `csrf` stands in every form of it."""

    principal: Principal
    token: str
    csrf: str
    started_s: float
    seen_s: float
    idle_s: float


@dataclass(frozen=True, slots=True)
class _Failures:
    count: int
    last_s: float


class Sessions:
    """Sessions by the SHA-256 of their cookie, in memory: they end with the process. Safe for several threads.

    A session ends when its browser signs out, after `idle_s` without a request, after `lifetime_s`, when its token no
    longer verifies (expired, key withdrawn, person revoked), and when the same person signs in again: what a new
    token no longer permits is then not permitted in an old window either. The token is verified at every request.
    """

    def __init__(self, verify: Verify, clock: Clock, settings: SessionSettings) -> None:
        self._verify = verify
        self._clock = clock
        self._settings = settings
        self._lock = Lock()
        self._sessions: dict[str, Session] = {}
        self._failures: dict[str, _Failures] = {}

    def sign_in(self, token: str, address: str) -> tuple[str, Session]:
        """A new cookie value and its session. The value is always new, so that none can be planted beforehand.

        Raises Unauthenticated, TooManyRequests (this address is locked).
        """
        now_s = self._clock.monotonic_s()
        self._require_unlocked(address, now_s)
        try:
            principal = self._verify(token.strip())
        except Unauthenticated:
            self._count_failure(address, now_s)
            raise
        cookie = secrets.token_urlsafe(32)
        session = Session(principal, token.strip(), secrets.token_urlsafe(32), now_s, now_s, self._settings.idle_s)
        with self._lock:
            self._failures.pop(address, None)
            self._forget(lambda old: old.principal.person_id == principal.person_id or self._is_over(old, now_s))
            if len(self._sessions) >= _MAX_SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[_key(cookie)] = session
        return cookie, session

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, its idle time begun anew; None when there is none or it has ended."""
        now_s = self._clock.monotonic_s()
        key = _key(cookie)
        with self._lock:
            session = self._sessions.get(key)
        if session is None:
            return None
        principal = None if self._is_over(session, now_s) else self._verified(session.token)
        if principal is None or principal.person_id != session.principal.person_id:
            self.end(cookie)
            return None
        seen = replace(session, principal=principal, seen_s=now_s)
        with self._lock:
            if key in self._sessions:  # it may have been ended meanwhile
                self._sessions[key] = seen
                return seen
        return None

    def end(self, cookie: str) -> None:
        with self._lock:
            self._sessions.pop(_key(cookie), None)

    def _verified(self, token: str) -> Principal | None:
        try:
            return self._verify(token)
        except Unauthenticated:
            return None

    def _is_over(self, session: Session, now_s: float) -> bool:
        settings = self._settings
        return now_s - session.seen_s >= settings.idle_s or now_s - session.started_s >= settings.lifetime_s

    def _forget(self, is_gone: Callable[[Session], bool]) -> None:
        for key in [key for key, session in self._sessions.items() if is_gone(session)]:
            del self._sessions[key]

    def _require_unlocked(self, address: str, now_s: float) -> None:
        with self._lock:
            failures = self._failures.get(address)
        if failures is None or failures.count < self._settings.bad_sign_ins:
            return
        left_s = failures.last_s + self._settings.lock_s - now_s
        if left_s > 0:
            raise TooManyRequests(
                "Too many sign-ins failed from here.",
                advice=f"Wait {max(1, round(left_s / 60))} minutes, then sign in with a current token.",
                code="sign_in_locked",
            )

    def _count_failure(self, address: str, now_s: float) -> None:
        with self._lock:
            old = self._failures.get(address)
            is_recent = old is not None and now_s - old.last_s < self._settings.lock_s
            count = old.count + 1 if old is not None and is_recent else 1
            if address not in self._failures and len(self._failures) >= _MAX_ADDRESSES:
                self._failures.pop(next(iter(self._failures)))
            self._failures[address] = _Failures(count, now_s)


def _key(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
