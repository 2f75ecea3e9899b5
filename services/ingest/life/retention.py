"""When a reference comes up for review, and what a person decides then. Nothing is erased by a date alone."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.ingest.enrolling.checks import MAX_TEXT
from services.ingest.enrolling.enrolment import EnrolmentView
from services.ingest.life.erasing import EraseCommand, EraseSubject
from services.shared.clock import Clock
from services.shared.errors import ConfigurationError, Conflict, InvalidRequest
from services.shared.ids import new_id
from services.shared.tokens import Principal

_MAX_DAYS = 36_500
_LAST_YEAR = 9000  # with the longest rule behind it there is still a date


class RetentionRule(BaseModel):
    """See retention.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: str
    watchlists: tuple[str, ...] | None = None
    disposals: tuple[str, ...] | None = None
    birth_bands: tuple[str, ...] | None = None
    counted_from: Literal["captured", "disposal"] = Field(alias="from")
    review_after_days: int = Field(ge=0, le=_MAX_DAYS)
    again_after_days: int = Field(ge=1, le=_MAX_DAYS)
    presume: Literal["erase", "retain"]

    def fits(self, reference: ReviewedReference) -> bool:
        limits = (
            (self.watchlists, reference.watchlist_id),
            (self.disposals, reference.disposal),
            (self.birth_bands, reference.birth_band),
        )
        return all(allowed is None or value in allowed for allowed, value in limits)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rule: list[RetentionRule]


@dataclass(frozen=True, slots=True)
class ReviewedReference:
    """What the clocks run on. Dates are ISO 8601; empty where not known."""

    enrolment_id: str
    watchlist_id: str
    owner: str
    subject_id: str
    captured_on: str
    custody_reference: str
    disposal: str
    disposal_on: str
    birth_band: str
    # The newest decision about it, and until when it holds.
    decided_on: str
    next_due_on: str


@dataclass(frozen=True, slots=True)
class DueReview:
    """A reference whose day has come, and what the rule presumes."""

    reference: ReviewedReference
    due_on: date
    rule_id: str
    presume: str


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """`next_due_on` is empty where the image is erased."""

    decision_id: str
    enrolment_id: str
    owner: str
    decision: str
    reason: str
    person_id: str
    decided_at_ms: int
    next_due_on: str


class ReviewLedger(Protocol):
    """What retention reads and writes in the ledger's store. Raises DependencyUnavailable."""

    def references(self, owner: str, watchlist_ids: frozenset[str]) -> Iterator[ReviewedReference]:
        """Every enrolled reference that is not synthetic."""
        ...

    def reference(self, enrolment_id: str) -> ReviewedReference | None: ...

    def decide(self, decision: ReviewDecision) -> None: ...


class ReviewAudit(Protocol):
    """A person's decision in the audit log, before it counts. Raises AuditUnavailable."""

    def record_review(self, view: EnrolmentView, decision: ReviewDecision, principal: Principal) -> None: ...


class RetentionFile:
    """The rules as they stand now: read again when the file has changed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = Lock()
        self._stamp: tuple[int, int] | None = None
        self._rules: tuple[RetentionRule, ...] = ()

    def rules(self) -> tuple[RetentionRule, ...]:
        """Raises ConfigurationError."""
        with self._lock:
            try:
                if self._path is None:
                    if not self._rules:
                        text = resources.files("services.ingest").joinpath("retention.toml").read_text("utf-8")
                        self._rules = tuple(_Document.model_validate(tomllib.loads(text)).rule)
                    return self._rules
                status = self._path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if stamp != self._stamp:
                    document = _Document.model_validate(tomllib.loads(self._path.read_text("utf-8")))
                    self._rules, self._stamp = tuple(document.rule), stamp
            except (OSError, ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"the retention rules cannot be read: {error}", advice="Mend the file; nothing falls due meanwhile."
                ) from error
            return self._rules


def due_review(reference: ReviewedReference, rules: Sequence[RetentionRule]) -> DueReview | None:
    """When it is up for review; None where no rule fits, which the list of due reviews says too.

    A decision holds until its day, unless the disposal changed after it: then the clock starts anew.
    """
    rule = next((rule for rule in rules if rule.fits(reference)), None)
    if rule is None:
        return None
    ended = _day(reference.disposal_on)
    if reference.next_due_on and (ended is None or ended.isoformat() <= reference.decided_on):
        return DueReview(reference, date.fromisoformat(reference.next_due_on), rule.id, rule.presume)
    started = (ended if rule.counted_from == "disposal" else None) or date.fromisoformat(reference.captured_on)
    return DueReview(reference, started + timedelta(days=rule.review_after_days), rule.id, rule.presume)


def _day(text: str) -> date | None:
    """None for what is no day: a feed of an earlier version took any word, and one would end the list of everybody."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.year < _LAST_YEAR else None


class Retention:
    """Lists what is due and takes decisions."""

    def __init__(
        self, ledger: ReviewLedger, rules: RetentionFile, erasing: EraseSubject, audit: ReviewAudit, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._rules = rules
        self._erasing = erasing
        self._audit = audit
        self._clock = clock

    def due(self, principal: Principal, until: date | None, limit: int) -> tuple[list[DueReview], int, int]:
        """The longest due first; how many there are in all; and how many references no rule fits.

        `until`: due by that day; by today for None. Raises ConfigurationError, DependencyUnavailable.
        """
        rules, last = self._rules.rules(), until or self._clock.now().date()
        found: list[DueReview] = []
        without_rule = 0
        for reference in self._ledger.references(principal.force, principal.watchlists):
            review = due_review(reference, rules)
            if review is None:
                without_rule += 1
            elif review.due_on <= last:
                found.append(review)
        found.sort(key=lambda review: (review.due_on, review.reference.enrolment_id))
        return found[:limit], len(found), without_rule

    def retain(self, view: EnrolmentView, principal: Principal, reason: str, next_due_on: date | None) -> date:
        """Keep it until the next review; its day. Raises InvalidRequest, Conflict, AuditUnavailable."""
        reference = self._ledger.reference(view.enrolment_id)
        rule = next((r for r in self._rules.rules() if reference is not None and r.fits(reference)), None)
        if rule is None and next_due_on is None:
            raise InvalidRequest("No rule fits this reference.", advice="Give `next_due_on`, or add a rule.")
        today = self._clock.now().date()
        latest = today + timedelta(days=rule.again_after_days if rule is not None else _MAX_DAYS)
        day = next_due_on or latest
        if not today < day <= latest:
            raise InvalidRequest(
                f"The next review cannot be on {day}.", advice=f"Give a day after today, {latest} at the latest."
            )
        self._write(view, principal, "retain", reason, day.isoformat())
        return day

    def erase(self, view: EnrolmentView, principal: Principal, reason: str, quarantine_days: int) -> str:
        """Erase it after its quarantine; the erasure's id. Raises as `EraseSubject.request` does."""
        self._write(view, principal, "erase", reason, "")
        authority = f"retention review of {view.enrolment_id}"
        command = EraseCommand(view.subject_id, reason, authority, quarantine_days, (view.enrolment_id,))
        return self._erasing.request(command, principal).erasure_id

    def _write(self, view: EnrolmentView, principal: Principal, what: str, reason: str, next_due_on: str) -> None:
        if not reason.strip() or len(reason) > MAX_TEXT or not reason.isprintable():
            raise InvalidRequest("`reason` is empty, too long or not printable.", advice="Say why, in a sentence.")
        if view.state != "enrolled":
            raise Conflict(f"This enrolment is {view.state}.", advice="Only what is enrolled is reviewed.")
        now_ms = int(self._clock.now().timestamp() * 1000)
        decision = ReviewDecision(
            new_id(), view.enrolment_id, view.owner, what, reason, principal.person_id, now_ms, next_due_on
        )
        self._audit.record_review(view, decision, principal)
        self._ledger.decide(decision)
