"""The use case behind every door: accept enrolments durably, or refuse them with a reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import sleep

import structlog

from services.ingest.auditing import EnrolmentAudit, intent_of
from services.ingest.enrolling.barring import BarErased
from services.ingest.enrolling.checks import LawfulnessChecks
from services.ingest.enrolling.enrolment import (
    Acceptance,
    EnrolmentKey,
    EnrolReference,
    IdempotencyKey,
    NewEnrolment,
    Source,
)
from services.ingest.life.erasure import ERASED
from services.ingest.models import CurrentModel
from services.ingest.ports import EnrolmentLedger, ImageHolds, OpenIntent
from services.rpc.v1 import audit_pb2
from services.shared.canonical import canonical_bytes
from services.shared.clock import Clock
from services.shared.errors import (
    AuditUnavailable,
    Conflict,
    DependencyUnavailable,
    ImageRefused,
    InvalidRequest,
    LikenessError,
    Overloaded,
    PlatformError,
)
from services.shared.ids import new_id
from services.shared.originals import check_stored
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal
from services.shared.tracing import traceparent

MAX_IDEMPOTENCY_KEY = 200
# After the audit log failed, callers are refused at once for this long instead of each finding out for itself.
_AUDIT_PAUSE_S = 0.5
# An image that is just being removed is gone in much less.
_HELD_WAIT_S = 5.0
_HELD_REST_S = 0.05

Answer = Acceptance | LikenessError


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much is under way, and how much may be."""

    pending: Callable[[], int]
    pending_limit: int
    outbox: Callable[[], int]
    outbox_limit: int

    def check(self) -> None:
        """Raises Overloaded."""
        if self.pending() >= self.pending_limit or self.outbox() >= self.outbox_limit:
            raise Overloaded(
                "Too many enrolments are waiting to be worked off.", advice="Try again later, at a lower rate."
            )


@dataclass(slots=True)
class _Candidate:
    """A checked command on its way; `place` is its index in the request."""

    place: int
    command: EnrolReference
    new: NewEnrolment
    intent: OpenIntent


class AcceptEnrolments:
    """Accepts commands in this order, so that a crash at any point loses nothing that was answered:

    1. check the command; find what already stands under its key: that is the answer then;
    2. remember the audit intent locally, then write it to the audit log, durably; look once more whether its subject
       is being erased;
    3. wait while the same image is being removed; store it, durably, once the virus scanner has passed it;
    4. insert into the ledger and forget the local intent, in one transaction.

    What stops between 2 and 4 leaves a remembered intent, which `CloseAbandonedIntents` closes.
    """

    def __init__(
        self,
        *,
        ledger: EnrolmentLedger,
        images: ImageStore,
        audit: EnrolmentAudit,
        checks: LawfulnessChecks,
        model: CurrentModel,
        backlog: Backlog,
        clock: Clock,
        pool: ThreadPoolExecutor,
        wake_worker: Callable[[], None],
        barring: BarErased | None = None,
        holds: ImageHolds | None = None,
    ) -> None:
        self._ledger = ledger
        self._images = images
        self._audit = audit
        self._checks = checks
        self._model = model
        self._backlog = backlog
        self._clock = clock
        self._pool = pool
        self._wake_worker = wake_worker
        self._barring = barring
        self._holds = holds
        self._audit_failed_at_s: float | None = None
        self._under_way: set[str] = set()

    def is_under_way(self, enrolment_id: str) -> bool:
        """Whether a call of this process is working on it just now."""
        return enrolment_id in self._under_way

    def accept(
        self, command: EnrolReference, principal: Principal, source: Source, idempotency_key: str = ""
    ) -> Acceptance:
        """Accept one. Raises what its check raises, Conflict, Overloaded, AuditUnavailable, DependencyUnavailable."""
        [answer] = self.accept_all([command], principal, source, idempotency_key)
        if isinstance(answer, LikenessError):
            raise answer
        return answer

    def accept_all(
        self,
        commands: Sequence[EnrolReference],
        principal: Principal,
        source: Source,
        idempotency_key: str = "",
    ) -> list[Answer]:
        """Accept several, each with its own answer in the same order: what one does wrong is no other's fault."""
        answers: dict[int, Answer] = {}
        candidates = []
        for place, command in enumerate(commands):
            try:
                candidates.append(self._candidate(place, command, principal, source, idempotency_key))
            except LikenessError as error:
                answers[place] = error
        candidates = self._without_erased(candidates, answers)
        new = self._without_known(candidates, answers)
        if new:
            ids = {candidate.new.enrolment_id for candidate in new}
            self._under_way |= ids  # one operation of the interpreter each, so threads do not come between
            try:
                self._backlog.check()
                self._store(new, answers)
            except PlatformError as error:
                for candidate in new:
                    answers.setdefault(candidate.place, error)
            finally:
                self._under_way -= ids
        return [answers[place] for place in range(len(commands))]

    def _candidate(
        self, place: int, command: EnrolReference, principal: Principal, source: Source, idempotency_key: str
    ) -> _Candidate:
        agreement = self._checks.check(command)
        if command.image is None:
            self._require_own_image(command.owner, command.image_sha256)
        key = EnrolmentKey(
            command.watchlist_id, command.owner, command.subject_id, command.digest, self._model.model_id()
        )
        new = NewEnrolment(
            enrolment_id=new_id(),
            reference_id=new_id(),
            key=key,
            lawful_basis=command.lawful_basis,
            captured_on=command.captured_on,
            agreement_reference=agreement,
            source=source,
            person_id=principal.person_id,
            force=principal.force,
            accepted_at_ms=int(self._clock.now().timestamp() * 1000),
            idempotency=_idempotency(idempotency_key, principal, command, key),
            traceparent=traceparent(),
        )
        return _Candidate(place, command, new, intent_of(new, principal))

    def _require_own_image(self, owner: str, sha256: str) -> None:
        """An image that others enrolled is as good as not there: whoever knows its digest alone neither learns that
        they hold it nor makes a reference of it."""
        self._require_stored(sha256)
        owners = self._ledger.owners_of_image(sha256)
        if owners and owner not in owners:
            raise _not_stored(sha256)

    def _require_stored(self, sha256: str) -> None:
        if not self._images.has(sha256):
            raise _not_stored(sha256)

    def _without_erased(self, candidates: Sequence[_Candidate], answers: dict[int, Answer]) -> list[_Candidate]:
        """Refuse what was erased: whoever sends it again, a replay or a restored system, does not bring it back."""
        if self._barring is None or not candidates:
            return list(candidates)
        try:
            refusals = self._barring.refusals([(each.command, each.new) for each in candidates])
        except PlatformError as error:
            answers.update(dict.fromkeys((each.place for each in candidates), error))
            return []
        for candidate, refusal in zip(candidates, refusals, strict=True):
            if refusal is not None:
                answers[candidate.place] = refusal
        return [each for each in candidates if each.place not in answers]

    def _without_known(self, candidates: Sequence[_Candidate], answers: dict[int, Answer]) -> list[_Candidate]:
        """Answer what already stands in the ledger; the rest goes on."""
        try:
            self._check_idempotency(candidates, answers)
            standing = self._ledger.find([candidate.new.key for candidate in candidates])
        except PlatformError as error:
            for candidate in candidates:
                answers.setdefault(candidate.place, error)
            return []
        unknown = []
        for candidate in candidates:
            if candidate.place in answers:
                continue
            known = standing.get(candidate.new.key)
            if known is not None and candidate.new.idempotency is None:
                answers[candidate.place] = known
            elif known is not None:
                # The caller's key has to be remembered, so it goes through the ledger, but nothing new comes of it.
                answers[candidate.place] = self._accept_again(candidate)
            else:
                unknown.append(candidate)
        return unknown

    def _check_idempotency(self, candidates: Sequence[_Candidate], answers: dict[int, Answer]) -> None:
        for candidate in candidates:
            if candidate.new.idempotency is None:
                continue
            try:
                self._ledger.check_idempotency(candidate.new.idempotency)
            except LikenessError as error:
                answers[candidate.place] = error

    def _accept_again(self, candidate: _Candidate) -> Answer:
        try:
            [answer] = self._ledger.accept([candidate.new])
        except LikenessError as error:
            return error
        return answer

    def _store(self, new: Sequence[_Candidate], answers: dict[int, Answer]) -> None:
        self._refuse_while_audit_is_down()
        now_ms = int(self._clock.now().timestamp() * 1000)
        self._ledger.remember_intents([candidate.intent for candidate in new], now_ms)
        # Where this fails there is nobody to tell now; the remembered intents are closed later.
        self._record_intents([candidate.intent for candidate in new])
        standing = self._still_wanted(new, answers)
        if not standing:
            return
        self._await_removals(standing)
        stored = self._store_images(standing, answers)
        if not stored:
            return
        accepted = self._ledger.accept([candidate.new for candidate in stored])
        for candidate, acceptance in zip(stored, accepted, strict=True):
            answers[candidate.place] = acceptance
        self._wake_worker()
        losers = [c for c, acceptance in zip(stored, accepted, strict=True) if not acceptance.is_new]
        self._close([c.intent for c in losers], audit_pb2.REFUSED, "duplicate")

    def _still_wanted(self, new: Sequence[_Candidate], answers: dict[int, Answer]) -> list[_Candidate]:
        """Now that the intents say whose images come, no erasure of a whole subject overlooks one; what began before
        is refused here."""
        standing = self._without_erased(new, answers)
        barred = [each.intent for each in new if isinstance(answers.get(each.place), Conflict)]
        self._close(barred, audit_pb2.REFUSED, ERASED)
        if not standing and not barred:
            self._close([each.intent for each in new], audit_pb2.FAILED, "not_stored")
        return standing

    def _record_intents(self, intents: Sequence[OpenIntent]) -> None:
        try:
            self._audit.record_intents(intents)
        except AuditUnavailable:
            self._audit_failed_at_s = self._clock.monotonic_s()
            raise

    def _await_removals(self, candidates: Sequence[_Candidate]) -> None:
        """Now that the intents say which images are needed, nobody begins to remove them; who has begun is waited for.
        Raises DependencyUnavailable."""
        if self._holds is None:
            return
        digests = sorted({candidate.new.key.image_sha256 for candidate in candidates})
        ends_s = self._clock.monotonic_s() + _HELD_WAIT_S
        while self._holds.held(digests):
            if self._clock.monotonic_s() >= ends_s:
                self._close([candidate.intent for candidate in candidates], audit_pb2.FAILED, "not_stored")
                raise DependencyUnavailable(
                    "An image that you send is just being removed from the store.", advice="Try again in a minute."
                )
            sleep(_HELD_REST_S)

    def _store_images(self, candidates: Sequence[_Candidate], answers: dict[int, Answer]) -> list[_Candidate]:
        """Store all at once; those that could not be stored get their error as answer and their intent closed."""
        errors = [self._try_to_store(candidates[0])]
        if len(candidates) > 1:
            errors += self._pool.map(self._try_to_store, candidates[1:])
        stored: list[_Candidate] = []
        failed: list[OpenIntent] = []
        refused: list[OpenIntent] = []
        for candidate, error in zip(candidates, errors, strict=True):
            if error is None:
                stored.append(candidate)
                continue
            answers[candidate.place] = error
            (refused if isinstance(error, ImageRefused) else failed).append(candidate.intent)
        self._close(failed, audit_pb2.FAILED, "not_stored")
        self._close(refused, audit_pb2.REFUSED, "image_malware")
        return stored

    def _try_to_store(self, candidate: _Candidate) -> LikenessError | None:
        """The image as it came goes into the store, or is there already; known malware does neither."""
        try:
            if candidate.command.image is not None:
                self._images.put(candidate.command.image)
            else:
                self._require_stored(candidate.command.image_sha256)  # it may have been removed since it was checked
                check_stored(self._images, candidate.command.image_sha256)
        except LikenessError as error:
            return error
        return None

    def _close(self, intents: Sequence[OpenIntent], phase: audit_pb2.Phase.ValueType, reason: str) -> None:
        """Close intents that came to nothing; what cannot be closed now stays remembered and is closed later."""
        if not intents:
            return
        try:
            self._audit.close_intents(intents, phase, reason)
            self._ledger.forget_intents([intent.enrolment_id for intent in intents])
        except PlatformError as error:
            structlog.get_logger().warning("intents_left_open", count=len(intents), code=error.code)

    def _refuse_while_audit_is_down(self) -> None:
        failed_at_s = self._audit_failed_at_s
        if failed_at_s is not None and self._clock.monotonic_s() - failed_at_s < _AUDIT_PAUSE_S:
            raise AuditUnavailable(
                "The audit log could not be written a moment ago, so nothing was stored.",
                advice="Try again in a few seconds; operators: start the audit service and check its disk.",
            )


def _not_stored(sha256: str) -> InvalidRequest:
    return InvalidRequest(
        f"No image {sha256[:64]} is in the image store.",
        advice="Store the image first, or send it inline.",
        code="image_not_stored",
    )


def _idempotency(
    key: str, principal: Principal, command: EnrolReference, enrolment_key: EnrolmentKey
) -> IdempotencyKey | None:
    if not key:
        return None
    if len(key) > MAX_IDEMPOTENCY_KEY or not key.isprintable():
        raise InvalidRequest(
            f"The Idempotency-Key is longer than {MAX_IDEMPOTENCY_KEY} characters or not printable.",
            advice="Send a UUID.",
        )
    request = {
        "watchlist": enrolment_key.watchlist_id,
        "owner": enrolment_key.owner,
        "subject_id": enrolment_key.subject_id,
        "image_sha256": enrolment_key.image_sha256,
        "lawful_basis": command.lawful_basis,
        "captured_on": command.captured_on,
        "agreement_reference": command.agreement_reference,
    }
    digest = hashlib.sha256(canonical_bytes(request)).hexdigest()
    return IdempotencyKey(f"{principal.force}/{principal.person_id}", key, digest)
