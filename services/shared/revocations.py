"""Tokens that count no longer although they have not expired: a file that every service reads.

    {"tokens": {"<jti>": <unix time the token expires>}, "persons": {"<sub>": <unix time of the revocation>}}

A token is revoked by its id, or with all others of its person, however spelled, that were issued at that second or
before. The file is looked at on every call, so a change counts from the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

from services.shared.errors import ConfigurationError
from services.shared.people import one_spelling

T = TypeVar("T")


class ReadAgain(Generic[T]):
    """What a file holds now: parsed again whenever the file has changed. Safe for several threads."""

    def __init__(self, path: Path, parse: Callable[[str], T], what: str, advice: str) -> None:
        self._path = path
        self._parse = parse
        self._what = what
        self._advice = advice
        self._lock = Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._value: T | None = None

    def current(self) -> T:
        """Raises ConfigurationError when it cannot be read: yesterday's content is not good enough."""
        with self._lock:
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
                if self._value is None or stamp != self._stamp:
                    self._value = self._parse(self._path.read_text("utf-8"))
                    self._stamp = stamp
                value = self._value
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                self._value = None
                raise ConfigurationError(
                    f"{self._what} cannot be read from {self._path}: {error}", advice=self._advice
                ) from error
            return value


@dataclass(frozen=True, slots=True)
class Revocations:
    """What has been revoked. `persons` is kept by one spelling of each: who signs in as `Anna` is `anna`."""

    tokens: Mapping[str, int] = field(default_factory=dict)
    persons: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        latest: dict[str, int] = {}
        for person_id, at in self.persons.items():
            name = one_spelling(person_id)
            latest[name] = max(at, latest.get(name, at))
        object.__setattr__(self, "persons", latest)

    def covers(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token with these verified claims counts no longer."""
        if str(claims.get("jti", "")) in self.tokens:
            return True
        revoked_at = self.persons.get(one_spelling(str(claims["sub"])))
        return revoked_at is not None and int(claims["iat"]) <= revoked_at

    def as_json(self) -> bytes:
        return json.dumps({"tokens": dict(self.tokens), "persons": dict(self.persons)}, indent=1).encode()


def parse_revocations(text: str) -> Revocations:
    """Raises ValueError, TypeError, KeyError for anything but the form that the module names."""
    document = json.loads(text)
    if set(document) != {"tokens", "persons"}:
        raise ValueError("it needs `tokens` and `persons` and nothing else")
    return Revocations(_times(document["tokens"]), _times(document["persons"]))


def _times(found: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(at) for name, at in found.items()}


def open_revocations(path: Path) -> ReadAgain[Revocations]:
    return ReadAgain(
        path,
        parse_revocations,
        "revoked tokens",
        'Put the file back, or start an empty one: {"tokens": {}, "persons": {}}.',
    )
