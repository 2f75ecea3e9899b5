"""The use case of erasing a person, everywhere and for good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from services.ingest.enrolling.checks import MAX_TEXT
from services.ingest.events import erasure_event
from services.ingest.life.certificates import CertificateSigner, certificate_body
from services.ingest.life.clock_guard import ClockGuard
from services.ingest.life.erasure import (
    ErasedRow,
    Erasure,
    ErasureLedger,
    ErasureProof,
    ErasureRegister,
    ErasureState,
    Tombstone,
)
from services.ingest.ports import GalleryWriter, ImageHolds
from services.rpc.v1 import audit_pb2
from services.shared.clock import Clock
from services.shared.errors import Conflict, DependencyUnavailable, Forbidden, InvalidRequest, LikenessError, NotFound
from services.shared.ids import new_id
from services.shared.ports.event_log import EventLog, ReceivedEvent
from services.shared.ports.image_store import ImageStore
from services.shared.tokens import Principal

MAX_QUARANTINE_DAYS = 366
_DAY_MS = 86_400_000


class MasterKeys(Protocol):
    """What is needed of `services.shared.adapters.image_keys.ImageKeys`."""

    def change_master(self) -> str: ...


@dataclass(frozen=True, slots=True)
class EraseCommand:
    """Erase a subject, or only the enrolments named. `quarantine_days` 0: at once."""

    subject_id: str
    reason: str
    authority: str
    quarantine_days: int
    enrolment_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErasureStores:
    """Everywhere that something of a person may be."""

    ledger: ErasureLedger
    register: ErasureRegister
    gallery: GalleryWriter
    images: ImageStore
    holds: ImageHolds
    keys: MasterKeys | None
    events: EventLog
    topics: Sequence[str]
    # Owner, subject and image SHA-256 that an event of these topics is about, and when it occurred (ms).
    about: Callable[[ReceivedEvent], tuple[str, str, str, int]]


class EraseSubject:
    """Erases in this order; each step can be repeated, so that a crash costs nothing:

    1. audit intent; then, in one transaction, the command and its references out of what may be searched;
    2. references out of the gallery, and what was just being enrolled of a whole subject with them: quarantined, until
       the day that the command names, or not at all;
    3. tombstones in the register, so that from here on nothing of it comes back;
    4. references out of the gallery once more, images and their keys, events and dead letters, ledger rows;
    5. a new master key for all other images: copies of the key table from before open nothing;
    6. audit outcome, certificate with the log's proofs, event.

    Up to 3 the command can be lifted.
    """

    def __init__(
        self, stores: ErasureStores, proof: ErasureProof, signer: CertificateSigner, guard: ClockGuard, clock: Clock
    ) -> None:
        self._stores = stores
        self._proof = proof
        self._signer = signer
        self._guard = guard
        self._clock = clock

    # --- commands

    def request(self, command: EraseCommand, principal: Principal) -> Erasure:
        """Durable when it returns; carried out in the background. The same again, or less, gives what is under way;
        more, or sooner, is an erasure of its own beside it.

        Raises InvalidRequest, NotFound (nothing of the subject), Forbidden (it stands on a watchlist that the token
        does not name), AuditUnavailable, DependencyUnavailable.
        """
        _check(command)
        subject = (principal.force, command.subject_id)
        ledger = self._stores.ledger
        under_way = [known for known in ledger.unfinished() if (known.owner, known.subject_id) == subject]
        try:
            chosen = self._chosen(command, principal)
        except NotFound:
            # Its rows may be bare already, and its certificate not there yet.
            if last := [known for known in under_way if set(command.enrolment_ids) <= set(known.enrolment_ids)]:
                return last[-1]
            raise
        now_ms = self._now_ms()
        due_at_ms = now_ms + command.quarantine_days * _DAY_MS if command.quarantine_days else 0
        for known in under_way:
            if _does_it_all(known, command, chosen, due_at_ms):
                return known
        erasure = Erasure(
            erasure_id=new_id(),
            owner=principal.force,
            subject_id=command.subject_id,
            is_whole_subject=not command.enrolment_ids,
            enrolment_ids=chosen,
            reason=command.reason,
            authority=command.authority,
            person_id=principal.person_id,
            requested_at_ms=now_ms,
            due_at_ms=due_at_ms,
        )
        self._proof.record_intent(erasure)
        ledger.open(erasure)
        return erasure

    def lift(self, erasure: Erasure) -> int:
        """Put the references back; how many. Raises Conflict when it is too late."""
        count = self._stores.ledger.lift(erasure.erasure_id)
        if count < 0:
            raise Conflict(
                "This erasure cannot be lifted any more.",
                advice="Enrol a new image, if that is lawful.",
                code="erasing",
            )
        self._proof.record_outcome(erasure, audit_pb2.REFUSED, {"reason": "lifted", "put_back": str(count)})
        return count

    # --- the background

    def step(self) -> int:
        """Take every unfinished erasure as far as it goes; how many moved. One that fails does not hold up the others:
        the first error is raised at the end."""
        moved, failure = 0, None
        for erasure in self._stores.ledger.unfinished():
            try:
                moved += self._advance(erasure)
            except LikenessError as error:
                structlog.get_logger().warning("erasure_waits", erasure_id=erasure.erasure_id, code=error.code)
                failure = failure or error
        if failure is not None:
            raise failure
        return moved

    def repeat_after_restore(self) -> int:
        """Erase again what stands although a tombstone says otherwise: the ledger came from a backup. How many."""
        stores = self._stores
        standing = stores.ledger.standing([each for each in stores.register.all() if each.is_erased])
        by_subject: dict[tuple[str, str, str], list[str]] = {}
        for tombstone, enrolment_id in standing:
            key = (tombstone.owner, tombstone.subject_id, tombstone.erasure_id)
            by_subject.setdefault(key, []).append(enrolment_id)
        for (owner, subject_id, earlier), enrolment_ids in by_subject.items():
            erasure = Erasure(
                erasure_id=new_id(),
                owner=owner,
                subject_id=subject_id,
                is_whole_subject=False,
                enrolment_ids=tuple(sorted(enrolment_ids)),
                reason="a restored backup or a replay brought back what had been erased",
                authority=f"erasure {earlier}",
                person_id="service:ingest",
                requested_at_ms=self._now_ms(),
                due_at_ms=0,
            )
            structlog.get_logger().error("erased_came_back", erasure_id=earlier, enrolments=len(enrolment_ids))
            self._proof.record_intent(erasure)
            stores.ledger.open(erasure)
        return len(standing)

    def clear_topics(self) -> bool:
        """Clear the topics of what was erased and came again; whether nothing of it is left there."""
        stores = self._stores
        erased = {(t.owner, t.image_sha256) for t in stores.register.all() if t.is_erased and t.image_sha256}

        def is_due(event: ReceivedEvent) -> bool:
            # By the image, because its subject may have had another name when it was erased.
            owner, _, sha256, _ = stores.about(event)
            return (owner, sha256) in erased and not stores.ledger.images_in_use([sha256], ())

        redaction = stores.events.redact(stores.topics, is_due)
        if redaction.count:
            structlog.get_logger().warning("erased_was_sent_again", events=redaction.count)
        return not redaction.remains_h

    def _advance(self, erasure: Erasure) -> bool:
        stores = self._stores
        if erasure.state is ErasureState.REQUESTED:
            self._out_of_gallery(stores.ledger.rows(erasure))
            return self._is_complete(erasure)
        if erasure.state is ErasureState.QUARANTINED:
            if not self._is_due(erasure):
                return False
            stores.ledger.move(erasure.erasure_id, ErasureState.ERASING)
            return True
        self._erase(erasure)
        return True

    def _is_complete(self, erasure: Erasure) -> bool:
        """Of a whole subject goes along what others were just enrolling when it was asked for; whoever began later
        knew of it (enrolling/barring.py). Whether it moved."""
        ledger = self._stores.ledger
        if erasure.is_whole_subject:
            if ledger.is_being_enrolled(erasure.owner, erasure.subject_id):
                return False
            if late := ledger.latecomers(erasure):
                ledger.take_along(erasure.erasure_id, late)
                return True
        ledger.move(erasure.erasure_id, ErasureState.QUARANTINED)
        return True

    def _is_due(self, erasure: Erasure) -> bool:
        if not erasure.due_at_ms:
            return True
        if self._now_ms() < erasure.due_at_ms:
            return False
        # The day has come, or the clock was set a moment ago, which the guard's own loop has not seen yet.
        self._guard.observe()
        return self._guard.is_trusted()

    def _erase(self, erasure: Erasure) -> None:
        stores, rows = self._stores, self._stores.ledger.rows(erasure)
        images = {row.image_sha256 for row in rows if row.image_sha256}
        done = dict(erasure.done)
        stores.register.add(_tombstones(erasure, images, self._now_ms()))

        def count(store: str, number: int) -> None:
            done[store] = done.get(store, 0) + number
            stores.ledger.move(erasure.erasure_id, ErasureState.ERASING, done)

        self._out_of_gallery(rows)
        done["gallery_references"] = len(rows)
        in_use = self._remove_images(images, erasure, count)
        count("images_kept_for_others", len(in_use) - done.get("images_kept_for_others", 0))
        redaction = stores.events.redact(stores.topics, self._is_about(erasure, images))
        count("events", redaction.count)
        done["events_remain_h"] = int(redaction.remains_h)
        count("ledger_rows", stores.ledger.erase_rows(erasure, self._now_ms()))
        if stores.keys is not None:
            stores.keys.change_master()
            done["master_key_changes"] = 1
        self._finish(replace(erasure, done=done), rows)

    def _remove_images(self, images: set[str], erasure: Erasure, count: Callable[[str, int], None]) -> frozenset[str]:
        """Those that stay, because another subject's enrolment needs them or is just being made of them."""
        stores, holder, wanted = self._stores, new_id(), sorted(images)
        try:
            if stores.holds.hold(holder, wanted, self._now_ms()) != images:
                raise DependencyUnavailable("An image is just being removed by a sweep.", advice="It is tried again.")
            in_use = stores.ledger.images_in_use(wanted, erasure.enrolment_ids) | stores.holds.intended(wanted)
            for sha256 in sorted(images - in_use):
                was_there = stores.images.has(sha256)
                stores.images.remove(sha256)
                count("images", int(was_there))
        finally:
            stores.holds.release(holder)
        return in_use

    def _finish(self, erasure: Erasure, rows: Sequence[ErasedRow]) -> None:
        intent = self._proof.record_intent(erasure)
        details = {name: str(number) for name, number in sorted(erasure.done.items())}
        outcome = self._proof.record_outcome(erasure, audit_pb2.DONE, details)
        # The later entry first: the checkpoint that holds it holds the earlier one too.
        outcome_proof, checkpoint = self._proof.prove(outcome.sequence)
        intent_proof, checkpoint_2 = self._proof.prove(intent.sequence)
        if checkpoint_2.tree_size != checkpoint.tree_size:
            outcome_proof, checkpoint = self._proof.prove(outcome.sequence)
            intent_proof, checkpoint = self._proof.prove(intent.sequence)
        now_ms = self._now_ms()
        body = certificate_body(
            erasure,
            rows,
            {"intent": (intent, intent_proof), "outcome": (outcome, outcome_proof)},
            checkpoint,
            is_sealed=self._stores.keys is not None,
            now_ms=now_ms,
        )
        events = [erasure_event(erasure.erasure_id, erasure.owner, erasure.subject_id, rows, now_ms)]
        self._stores.ledger.finish(erasure.erasure_id, self._signer.sign(body), now_ms, events)
        structlog.get_logger().info("erased", erasure_id=erasure.erasure_id, **erasure.done)

    def _out_of_gallery(self, rows: Sequence[ErasedRow]) -> None:
        if rows:
            self._stores.gallery.withdraw([row.reference_id for row in rows], [row.version for row in rows])

    def _is_about(self, erasure: Erasure, images: set[str]) -> Callable[[ReceivedEvent], bool]:
        key = f"{erasure.owner}/{erasure.subject_id}"

        def is_due(event: ReceivedEvent) -> bool:
            owner, subject_id, sha256, occurred_at_ms = self._stores.about(event)
            is_subject = event.key == key or (owner, subject_id) == (erasure.owner, erasure.subject_id)
            # What the person is taken into custody for afterwards is another matter.
            is_before = erasure.is_whole_subject and occurred_at_ms <= erasure.requested_at_ms
            return is_subject and (is_before or sha256 in images)

        return is_due

    def _chosen(self, command: EraseCommand, principal: Principal) -> tuple[str, ...]:
        standing = self._stores.ledger.enrolments_of(principal.force, command.subject_id)
        wanted = set(command.enrolment_ids)
        chosen = [each for each in standing if not wanted or each[0] in wanted]
        if not chosen or (wanted and len(chosen) < len(wanted)):
            raise NotFound(
                "Nothing of this subject stands in the ledger, or not every enrolment that you name.",
                advice="Check the subject_id and the enrolment ids; what was erased before has nothing left to erase.",
            )
        if any(watchlist_id not in principal.watchlists for _, watchlist_id, _ in chosen):
            raise Forbidden(
                "The subject stands on a watchlist that your token does not name.",
                advice="Let a custodian erase it whose token names every watchlist.",
            )
        return tuple(sorted(enrolment_id for enrolment_id, _, _ in chosen))

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _does_it_all(known: Erasure, command: EraseCommand, chosen: Sequence[str], due_at_ms: int) -> bool:
    """Whether what is under way erases as much, and no later."""
    is_as_whole = known.is_whole_subject or bool(command.enrolment_ids)
    return is_as_whole and set(chosen) <= set(known.enrolment_ids) and known.due_at_ms <= due_at_ms


def _tombstones(erasure: Erasure, images: set[str], now_ms: int) -> list[Tombstone]:
    # What happened before the command is what is erased; the same person may be taken into custody again tomorrow.
    whole = [""] if erasure.is_whole_subject else []
    return [
        Tombstone(
            erasure.owner,
            erasure.subject_id,
            sha256,
            erasure.erasure_id,
            erasure.requested_at_ms if not sha256 else now_ms,
        )
        for sha256 in [*whole, *sorted(images)]
    ]


def _check(command: EraseCommand) -> None:
    for name in ("subject_id", "reason", "authority"):
        text: str = getattr(command, name)
        if not text.strip() or len(text) > MAX_TEXT or not text.isprintable():
            raise InvalidRequest(
                f"`{name}` is empty, longer than {MAX_TEXT} characters or not printable.",
                advice="Say whom, why, and on whose authority, each in a line.",
            )
    if not 0 <= command.quarantine_days <= MAX_QUARANTINE_DAYS:
        raise InvalidRequest(
            f"`quarantine_days` is {command.quarantine_days}.", advice=f"Give 0 (at once) to {MAX_QUARANTINE_DAYS}."
        )
