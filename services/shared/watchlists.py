"""Watchlists and agreements: what an administrator configures and every decision reads."""

from __future__ import annotations

import base64
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from enum import StrEnum
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError

from services.shared.canonical import canonical_bytes
from services.shared.errors import ConfigurationError

# Ids stand in tokens, partitions, metrics and audit entries.
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class CaseType(StrEnum):
    """Who the person on the probe is to the case. UNSTATED is what a caller that does not say it gets."""

    SUSPECT = "suspect"
    VICTIM = "victim"
    WITNESS = "witness"
    MISSING_PERSON = "missing_person"
    DECEASED = "deceased"
    UNSTATED = "unstated"


class Watchlist(BaseModel):
    """A legally defined part of the gallery."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Identifier
    title: str
    shared_with: Literal["owner", "signatories", "any"]
    needs_agreement: bool
    lawful_bases: tuple[str, ...]
    purposes: tuple[str, ...]
    case_types: tuple[CaseType, ...] = tuple(CaseType)
    # Whether only people whose training is in date may search it.
    needs_training: bool = False


def _ed25519(text: str) -> str:
    if len(base64.b64decode(text, validate=True)) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes, in base64")
    return text


class OwnerKey(BaseModel):
    """The key by which an owner signs its agreements: the trust anchor that an administrator configures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    key_id: str
    public_key: Annotated[str, AfterValidator(_ed25519)]


class Agreement(BaseModel):
    """An owner's consent that its references in one watchlist are searched by a consortium."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    watchlist: Identifier
    owner: str
    signed_on: date
    expires_on: date
    withdrawn_on: date | None = None

    def is_in_force(self, on: date) -> bool:
        """Signed and neither expired nor withdrawn. The day of expiry or withdrawal no longer counts."""
        ends = min(self.expires_on, self.withdrawn_on or self.expires_on)
        return self.signed_on <= on < ends


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    watchlist: list[Watchlist]
    agreement: list[Agreement] = []
    owner_key: list[OwnerKey] = []


class Watchlists:
    """All watchlists and agreements of one configuration."""

    def __init__(
        self,
        watchlists: Mapping[str, Watchlist],
        agreements: tuple[Agreement, ...],
        owner_keys: tuple[OwnerKey, ...] = (),
    ) -> None:
        self._watchlists = dict(watchlists)
        self._agreements = agreements
        self._owner_keys = owner_keys
        self._digest = hashlib.sha256(canonical_bytes(self._value())).hexdigest()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all that decisions read here: two configurations that say the same have the same."""
        return self._digest

    def _value(self) -> dict[str, object]:
        return {
            "watchlists": [watchlist.model_dump(mode="json") for watchlist in self._watchlists.values()],
            "agreements": [agreement.model_dump(mode="json") for agreement in self._agreements],
        }

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """Every agreement, also those not in force."""
        return self._agreements

    @property
    def owner_keys(self) -> tuple[OwnerKey, ...]:
        return self._owner_keys

    def with_agreements(self, agreements: Iterable[Agreement]) -> Watchlists:
        """The same watchlists with these agreements instead."""
        return Watchlists(self._watchlists, tuple(agreements), self._owner_keys)

    def __contains__(self, watchlist_id: str) -> bool:
        return watchlist_id in self._watchlists

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._watchlists)

    @property
    def purposes(self) -> frozenset[str]:
        """Every purpose that some watchlist may be searched for."""
        return frozenset(purpose for watchlist in self._watchlists.values() for purpose in watchlist.purposes)

    def get(self, watchlist_id: str) -> Watchlist | None:
        return self._watchlists.get(watchlist_id)

    def agreement_in_force(self, watchlist_id: str, owner: str, on: date) -> Agreement | None:
        """The owner's agreement for a watchlist that is in force on a day; None when there is none."""
        for agreement in self._agreements:
            if (agreement.watchlist, agreement.owner) == (watchlist_id, owner) and agreement.is_in_force(on):
                return agreement
        return None

    def signatories(self, watchlist_id: str, on: date) -> frozenset[str]:
        """The forces whose agreement for a watchlist is in force on a day."""
        return frozenset(agreement.owner for agreement in self.agreements_in_force(watchlist_id, on))

    def agreements_in_force(self, watchlist_id: str, on: date) -> tuple[Agreement, ...]:
        """Every owner's agreement for a watchlist that is in force on a day."""
        return tuple(a for a in self._agreements if a.watchlist == watchlist_id and a.is_in_force(on))


def parse_watchlists(text: str, where: str) -> Watchlists:
    """Read the TOML form; ConfigurationError names the place that is wrong."""
    try:
        document = _Document.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(f"{where}: {error}", advice="Mend the watchlist file and start again.") from error
    by_id = {watchlist.id: watchlist for watchlist in document.watchlist}
    if len(by_id) < len(document.watchlist):
        raise ConfigurationError(
            f"{where}: two watchlists have one id", advice="Give each watchlist an id of its own and start again."
        )
    unknown = sorted({a.watchlist for a in document.agreement} - by_id.keys())
    if unknown:
        raise ConfigurationError(
            f"{where}: agreements name watchlists that do not exist: {', '.join(unknown)}",
            advice="Mend the watchlist file and start again.",
        )
    if len({a.reference for a in document.agreement}) < len(document.agreement):
        raise ConfigurationError(
            f"{where}: two agreements have one reference", advice="Give each agreement a reference of its own."
        )
    return Watchlists(by_id, tuple(document.agreement), tuple(document.owner_key))


class WatchlistFile:
    """The configuration as it stands now: read again when the file has changed, so a withdrawal counts at once.

    A file that became unreadable raises ConfigurationError rather than leaving yesterday's consent in force.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._current: Watchlists | None = None

    def current(self) -> Watchlists:
        with self._lock:
            if self._path is None:
                if self._current is None:
                    text = resources.files("services.shared").joinpath("watchlists.toml").read_text("utf-8")
                    self._current = parse_watchlists(text, "packaged watchlists.toml")
                return self._current
            try:
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if self._current is None or stamp != self._stamp:
                    self._current = parse_watchlists(self._path.read_text("utf-8"), str(self._path))
                    self._stamp = stamp
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"watchlist file cannot be read: {error}", advice="Put the watchlist file back."
                ) from error
            return self._current
