"""Signed-in people: a bearer token exchanged for a session that this server keeps and can end at any moment."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

import orjson
from pydantic import BaseModel, Field

from services.review.console.session_store import (
    Ended,
    SessionStore,
    StoredSession,
    Tokens,
    form_token_of,
    key_of,
    opened,
    owner_of,
    sealed,
)
from services.shared.clock import Clock
from services.shared.errors import TooManyRequests, Unauthenticated
from services.shared.tokens import Principal

Verify = Callable[[str], Principal]
# Exchanges a refresh token for new tokens. Raises Unauthenticated, DependencyUnavailable.
Renew = Callable[[Tokens], Tokens]
_MAX_ADDRESSES = 10_000
_RENEWALS_AT_ONCE = 64


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
    idle_s: float
    # Of a sign-in at the identity provider, for the sign-out there; empty otherwise.
    id_token: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session was begun: the address that its connection had, the browser in a few words."""

    address: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A session that another sign-in of the same person ended."""

    place: Place
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class OwnSession:
    """One of a person's sessions, as its person may see it. `session_id` names it and opens nothing."""

    session_id: str
    place: Place
    started_at: datetime
    seen_at: datetime
    # When it ends at the latest, if it is used all the time.
    ends_at: datetime
    is_this: bool
    replaced: Replaced | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How long a session has left if nothing is done in it, 0 when it is over, and then why where that is known.

    `can_stay`: using it gives it more; at the end of its longest life nothing does.
    """

    left_s: float
    can_stay: bool = False
    ended: Ended | None = None


@dataclass(frozen=True, slots=True)
class _Failures:
    count: int
    last_s: float


class Sessions:
    """Sessions by the SHA-256 of their cookie, in a store that all replicas share. Safe for several threads.

    A session ends when its browser signs out, after `idle_s` without a request, after `lifetime_s`, when its token no
    longer verifies (expired and not renewed, key withdrawn, person revoked), and when the same person signs in again:
    what a new token no longer permits is then not permitted in an old window either. The token is verified at every
    request. Failed sign-ins are counted by this process alone.
    """

    def __init__(
        self, verify: Verify, clock: Clock, settings: SessionSettings, store: SessionStore, renew: Renew | None = None
    ) -> None:
        self._verify = verify
        self._clock = clock
        self._settings = settings
        self._store = store
        self._renew = renew
        self._renewing = tuple(Lock() for _ in range(_RENEWALS_AT_ONCE))
        self._lock = Lock()
        self._failures: dict[str, _Failures] = {}
        # A request a second is not a write a second; the last use is known this closely, and ends early by no more.
        self._closely = timedelta(seconds=min(30.0, settings.idle_s / 60))

    def sign_in(self, token: str, address: str, agent: str = "") -> tuple[str, Session]:
        """A new cookie value and its session, for whoever brings a token.

        Raises Unauthenticated, TooManyRequests (this address is locked), DependencyUnavailable.
        """
        now_s = self._clock.monotonic_s()
        self._require_unlocked(address, now_s)
        try:
            self._verify(token.strip())
        except Unauthenticated:
            self._count_failure(address, now_s)
            raise
        with self._lock:
            self._failures.pop(address, None)
        return self.begin(Tokens(token.strip()), Place(address, agent))

    def begin(self, tokens: Tokens, place: Place = Place()) -> tuple[str, Session]:
        """A session of these tokens. The cookie's value is always new, so that none can be planted beforehand.

        Raises Unauthenticated, DependencyUnavailable.
        """
        principal = self._verify(tokens.access)
        now = self._clock.now()
        cookie = secrets.token_urlsafe(32)
        self._store.end_before(now - self._idle, now - self._lifetime)
        owner = owner_of(principal.force, principal.person_id)
        others = self._store.of(owner)
        content, replaced = sealed(cookie, tokens), _packed(others[0]) if others else ""
        self._store.begin(
            StoredSession(key_of(cookie), owner, now, now, content, place.address[:64], place.agent[:64], replaced)
        )
        return cookie, self._session(cookie, principal, tokens)

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, its idle time begun anew; None when there is none or it has ended.

        Raises DependencyUnavailable: then nobody is let in, and nobody is signed out.
        """
        stored = self._store.find(key_of(cookie)) if cookie else None
        if stored is None:
            return None
        now = self._clock.now()
        over = self._over(stored)
        tokens, principal = self._current(cookie, None if over else opened(cookie, stored.sealed))
        if tokens is None or principal is None or owner_of(principal.force, principal.person_id) != stored.person_id:
            self._store.end(stored.key, over or Ended.ACCESS)
            return None
        if now - stored.seen_at >= self._closely:
            self._store.touch(stored.key, now)
        return self._session(cookie, principal, tokens)

    def end(self, cookie: str) -> None:
        if cookie:
            self._store.end(key_of(cookie))

    def why_ended(self, cookie: str) -> Ended | None:
        """None where the cookie names nothing that is known to have ended. Raises DependencyUnavailable."""
        return self._store.why_ended(key_of(cookie)) if cookie else None

    def standing(self, cookie: str) -> Standing:
        """Asking is no use of the session: what stands open and unattended may ask as often as it likes.

        Raises DependencyUnavailable.
        """
        stored = self._store.find(key_of(cookie)) if cookie else None
        if stored is None:
            return Standing(0.0, ended=self.why_ended(cookie))
        unused_until, at_the_latest = stored.seen_at + self._idle, stored.started_at + self._lifetime
        left = min(unused_until, at_the_latest) - self._clock.now()
        return Standing(max(0.0, left.total_seconds()), unused_until < at_the_latest, self._over(stored))

    def _over(self, stored: StoredSession) -> Ended | None:
        now = self._clock.now()
        if now - stored.started_at >= self._lifetime:
            return Ended.AGE
        return Ended.IDLE if now - stored.seen_at >= self._idle else None

    def own(self, cookie: str) -> Sequence[OwnSession]:
        """All that stand in the name of this session's person, this one first. Raises DependencyUnavailable."""
        this = self._store.find(key_of(cookie))
        if this is None:
            return ()
        now = self._clock.now()
        found = [
            OwnSession(
                session_id=_public_id(one.key),
                place=Place(one.address, one.agent),
                started_at=one.started_at,
                seen_at=one.seen_at,
                ends_at=one.started_at + self._lifetime,
                is_this=one.key == this.key,
                replaced=_unpacked(one.replaced),
            )
            for one in self._store.of(this.person_id)
            if now - one.seen_at < self._idle and now - one.started_at < self._lifetime
        ]
        return sorted(found, key=lambda one: not one.is_this)

    def end_own(self, cookie: str, session_ids: Collection[str]) -> None:
        """End those of this session's person that have these ids; what has ended, or is another's, is left alone."""
        this = self._store.find(key_of(cookie))
        for one in self._store.of(this.person_id) if this is not None else ():
            if _public_id(one.key) in session_ids:
                self._store.end(one.key, Ended.CLOSED)

    def _session(self, cookie: str, principal: Principal, tokens: Tokens) -> Session:
        return Session(principal, tokens.access, form_token_of(cookie), self._settings.idle_s, tokens.id_token)

    def _current(self, cookie: str, tokens: Tokens | None) -> tuple[Tokens | None, Principal | None]:
        """Tokens that verify, renewed where they no longer do and can be."""
        if tokens is None:
            return None, None
        principal = self._verified(tokens.access)
        if principal is not None or self._renew is None or not tokens.refresh:
            return tokens, principal
        return self._renewed(cookie, self._renew)

    def _renewed(self, cookie: str, renew: Renew) -> tuple[Tokens | None, Principal | None]:
        """A page asks for many pictures at once: one of its requests renews, the others take what it got."""
        key = key_of(cookie)
        with self._renewing[int(key[:8], 16) % _RENEWALS_AT_ONCE]:
            stored = self._store.find(key)
            tokens = None if stored is None else opened(cookie, stored.sealed)
            if stored is None or tokens is None:
                return None, None
            if (principal := self._verified(tokens.access)) is not None:
                return tokens, principal
            try:
                fresh = renew(tokens)
            except Unauthenticated:
                fresh = None
            if fresh is not None and self._store.reseal(key, stored.sealed, sealed(cookie, fresh)):
                return fresh, self._verified(fresh.access)
            # Another replica was quicker, or has used the refresh token up: what stands there now counts.
            stored = self._store.find(key)
            tokens = None if stored is None else opened(cookie, stored.sealed)
            return (None, None) if tokens is None else (tokens, self._verified(tokens.access))

    @property
    def _idle(self) -> timedelta:
        return timedelta(seconds=self._settings.idle_s)

    @property
    def _lifetime(self) -> timedelta:
        return timedelta(seconds=self._settings.lifetime_s)

    def _verified(self, token: str) -> Principal | None:
        try:
            return self._verify(token)
        except Unauthenticated:
            return None

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


def _public_id(key: str) -> str:
    """Names a session on a page and in the log. From it nobody comes to the key, and from the key nobody in."""
    return hashlib.sha256(b"session id " + key.encode()).hexdigest()[:16]


def _packed(session: StoredSession) -> str:
    told = [session.address, session.agent, session.started_at, session.seen_at]
    return orjson.dumps(told).decode()


def _unpacked(text: str) -> Replaced | None:
    if not text:
        return None
    address, agent, started, seen = orjson.loads(text)
    return Replaced(Place(address, agent), datetime.fromisoformat(started), datetime.fromisoformat(seen))
