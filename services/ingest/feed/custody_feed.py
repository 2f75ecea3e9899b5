"""The consumer of custody systems: the same use cases as REST behind another door, and a receipt for every input."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import replace

import structlog

from services.ingest.enrolling.acceptance import AcceptEnrolments
from services.ingest.enrolling.checks import CUSTODIAN
from services.ingest.enrolling.enrolment import EnrolReference, Source
from services.ingest.events import receipt_event
from services.ingest.feed.messages import CustodyInput, parse
from services.ingest.feed.wording import check_words, shown
from services.ingest.life.custody import (
    CustodyFacts,
    CustodyLedger,
    EnrolmentFacts,
    OwnerTurns,
    Receipt,
    ReceiptOutcome,
    SubjectLink,
)
from services.ingest.life.erasing import EraseCommand, EraseSubject
from services.ingest.life.erasure import ERASED, ErasureRegister, Tombstone
from services.ingest.life.withdrawal import WithdrawReference
from services.ingest.ports import EnrolmentLedger
from services.rpc.v1 import events_pb2
from services.shared.clock import Clock
from services.shared.consume import InvalidMessage, MessageRejected, RecoverableError
from services.shared.errors import CallerError, NotFound, Overloaded, PlatformError
from services.shared.ids import is_id, new_id
from services.shared.ports.event_log import ReceivedEvent
from services.shared.tokens import Principal

FEED = "service:custody-feed"
_Outcome = tuple[ReceiptOutcome, str]  # and the enrolment's id, where there is one


class CustodyFeed:
    """Handles the custody topics. Who may write to them speaks for the owners it names; `owners` narrows that down.

    Inputs may come late, twice and out of order: each says when it occurred, and what is older than what is known
    changes nothing.
    """

    def __init__(
        self,
        *,
        acceptance: AcceptEnrolments,
        ledger: EnrolmentLedger,
        custody: CustodyLedger,
        turns: OwnerTurns,
        withdrawal: WithdrawReference,
        erasing: EraseSubject,
        register: ErasureRegister,
        watchlists: Callable[[], Collection[str]],
        clock: Clock,
        owners: Collection[str],
        quarantine_days: int = 0,
        on_erased: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_erased` is told when somebody sent what had been erased, so that the topic is cleared of it."""
        self._acceptance = acceptance
        self._ledger = ledger
        self._custody = custody
        self._turns = turns
        self._withdrawal = withdrawal
        self._erasing = erasing
        self._register = register
        self._watchlists = watchlists
        self._clock = clock
        self._owners = frozenset(owners)
        self._quarantine_days = quarantine_days
        self._on_erased = on_erased

    def handle(self, event: ReceivedEvent) -> None:
        """Do what it says; the same event again changes nothing. Raises the named outcomes of the consume loop."""
        try:
            found = parse(event)
        except InvalidMessage as error:
            self._refuse(event, None, error)
            raise
        try:
            check_words(found, self._clock.now())
            with self._turn(found):
                outcome, enrolment_id = self._take(found)
        except Overloaded as error:
            raise MessageRejected(error.detail) from error
        except CallerError as error:
            self._refuse_for_good(event, found, InvalidMessage(error.code, error.detail))
            return
        except InvalidMessage as error:
            self._refuse_for_good(event, found, error)
            return
        except PlatformError as error:
            raise RecoverableError(error.detail) from error
        self._give_receipt(event, self._receipt(found, outcome, enrolment_id=enrolment_id))

    def _turn(self, found: CustodyInput) -> AbstractContextManager[None]:
        is_image = isinstance(found.message, events_pb2.CustodyImageReceived)
        return self._turns.shared(found.owner) if is_image else self._turns.alone(found.owner)

    def _take(self, found: CustodyInput) -> _Outcome:
        if self._owners and found.owner not in self._owners:
            raise InvalidMessage("forbidden", f"this feed does not take what {found.owner} sends")
        known = self._custody.receipt(found.owner, found.event_id)
        if known is not None and known.outcome is not ReceiptOutcome.REFUSED:
            if known.digest != found.digest:
                raise InvalidMessage("event_id_reused", "another event came under this event_id before")
            if self._was_erased(found):
                self._on_erased()
            return ReceiptOutcome.REPEATED, known.enrolment_id
        message = found.message
        if isinstance(message, events_pb2.CustodyImageReceived):
            return self._take_image(found, message)
        if not found.owner or not found.subject_id:
            raise InvalidMessage("malformed_message", "`owner` or `subject_id` is empty")
        if isinstance(message, events_pb2.CustodyDisposalChanged):
            return self._take_disposal(found, message), ""
        if isinstance(message, events_pb2.CustodyImageWithdrawn):
            return self._take_withdrawal(found, message)
        return self._take_links(found, message), ""

    def _was_erased(self, found: CustodyInput) -> bool:
        """Whether an image that was taken once has been erased since: it is sent again, and must not lie here."""
        message = found.message
        if not isinstance(message, events_pb2.CustodyImageReceived):
            return False
        sha256 = _command(message).digest
        subjects = {found.subject_id, self._custody.subject_of(found.owner, found.subject_id, sha256)}
        tombstones = self._register.find([(found.owner, subject_id, sha256) for subject_id in subjects])
        return any(tombstone.is_erased for tombstone in tombstones.values())

    def _take_image(self, found: CustodyInput, message: events_pb2.CustodyImageReceived) -> _Outcome:
        if message.HasField("is_notice_given") and not message.is_notice_given:
            raise InvalidMessage("notice_not_given", "the person was not told that the image is kept and searched")
        command = replace(_command(message), occurred_at_ms=found.occurred_at_ms)
        subject_id = self._custody.subject_of(found.owner, found.subject_id, command.digest)
        for each in {found.subject_id, subject_id}:
            self._refuse_erased_subject(found, each)
        if subject_id != command.subject_id:
            command = replace(command, subject_id=subject_id)
        principal = Principal(FEED, found.owner, frozenset({CUSTODIAN}), frozenset({message.watchlist_id}))
        enrolment_id = self._acceptance.accept(command, principal, Source.KAFKA).enrolment_id
        notice = message.is_notice_given if message.HasField("is_notice_given") else None
        facts = EnrolmentFacts(
            enrolment_id,
            message.custody_reference,
            message.birth_band,
            notice,
            message.capture_device,
            message.pose,
            found.event_id,
        )
        self._custody.note_image(facts)
        if message.custody_reference:
            self._custody.note_custody(
                CustodyFacts(
                    found.owner,
                    found.subject_id,
                    message.custody_reference,
                    found.occurred_at_ms,
                    message.disposal,
                    message.disposal_on,
                    message.birth_band,
                    notice,
                )
            )
        return ReceiptOutcome.ACCEPTED, enrolment_id

    def _refuse_erased_subject(self, found: CustodyInput, subject_id: str) -> None:
        """What happened before a subject was erased, or taken back, does not come back with a replay."""
        key = (found.owner, subject_id, "")
        tombstone = self._register.find([key]).get(key)
        if tombstone is not None and found.occurred_at_ms <= tombstone.erased_at_ms:
            what = "erased" if tombstone.is_erased else "withdrawn"
            raise InvalidMessage(what, f"the subject was {what} after this occurred, or this does not say when it did")

    def _take_disposal(self, found: CustodyInput, message: events_pb2.CustodyDisposalChanged) -> ReceiptOutcome:
        if not message.custody_reference:
            raise InvalidMessage("malformed_message", "`custody_reference` is empty")
        facts = CustodyFacts(
            found.owner,
            found.subject_id,
            message.custody_reference,
            found.occurred_at_ms,
            message.disposal,
            message.disposal_on,
        )
        return ReceiptOutcome.APPLIED if self._custody.note_custody(facts) else ReceiptOutcome.STALE

    def _take_links(
        self, found: CustodyInput, message: events_pb2.CustodySubjectMerged | events_pb2.CustodySubjectSplit
    ) -> ReceiptOutcome:
        into = message.into_subject_id
        if not into or into == found.subject_id:
            raise InvalidMessage("malformed_message", "`into_subject_id` is empty or the same")
        images = list(message.image_sha256s) if isinstance(message, events_pb2.CustodySubjectSplit) else [""]
        if not images:
            raise InvalidMessage("malformed_message", "`image_sha256s` is empty")
        now_ms = self._now_ms()
        moved = [
            self._custody.link(SubjectLink(found.owner, found.subject_id, sha256, into, found.occurred_at_ms), now_ms)
            for sha256 in images
        ]
        structlog.get_logger().info(
            "subjects_linked", kind=found.kind, moved=sum(count for count in moved if count > 0)
        )
        return ReceiptOutcome.STALE if all(count < 0 for count in moved) else ReceiptOutcome.APPLIED

    def _take_withdrawal(self, found: CustodyInput, message: events_pb2.CustodyImageWithdrawn) -> _Outcome:
        reason = message.reason or "withdrawn by its owner"
        who = Principal(FEED, found.owner, frozenset({CUSTODIAN}), frozenset(self._watchlists()))
        # First, so that an image which is still on its way is refused when it comes.
        mark = found.event_id if is_id(found.event_id) else new_id()
        tombstone = Tombstone(
            found.owner, found.subject_id, message.image_sha256, mark, found.occurred_at_ms, is_erased=False
        )
        self._register.add([tombstone])
        subject_id = self._custody.subject_of(found.owner, found.subject_id, message.image_sha256)
        # What was taken back before is still there to be erased. Of a subject as a whole nothing of a later event goes:
        # what is said here may come late.
        until_ms = None if message.image_sha256 else found.occurred_at_ms
        chosen = self._custody.enrolments_of_image(
            found.owner, subject_id, message.image_sha256, until_ms=until_ms, with_withdrawn=message.is_erasure
        )
        if not chosen:
            return ReceiptOutcome.APPLIED, ""
        if message.is_erasure:
            every = self._custody.enrolments_of_image(found.owner, subject_id, "", with_withdrawn=True)
            only = () if not message.image_sha256 and set(chosen) == set(every) else tuple(chosen)
            authority = message.authority or f"event {found.event_id[:100]}"
            try:
                self._erasing.request(EraseCommand(subject_id, reason, authority, self._quarantine_days, only), who)
            except NotFound:
                return ReceiptOutcome.APPLIED, ""
            return ReceiptOutcome.APPLIED, ""
        for enrolment_id in chosen:
            view = self._ledger.view(enrolment_id)
            if view is not None:
                self._withdrawal.withdraw(view, who, reason)
        return ReceiptOutcome.APPLIED, chosen[0]

    # --- receipts

    def _refuse_for_good(self, event: ReceivedEvent, found: CustodyInput, error: InvalidMessage) -> None:
        """With a receipt, and as a dead letter; but what was erased does not come to lie there again."""
        self._refuse(event, found, error)
        if error.reason != ERASED:
            raise error
        self._on_erased()

    def _refuse(self, event: ReceivedEvent, found: CustodyInput | None, error: InvalidMessage) -> None:
        if found is None:
            owner, _, subject_id = event.key.partition("/")
            place = f"{event.topic}/{event.partition}/{event.offset}"
            receipt = Receipt(shown(owner), place, "", shown(subject_id), "", 0, self._now_ms(), ReceiptOutcome.REFUSED)
        else:
            receipt = self._receipt(found, ReceiptOutcome.REFUSED)
        refused = Receipt(
            receipt.owner,
            receipt.event_id,
            receipt.kind,
            receipt.subject_id,
            receipt.digest,
            receipt.occurred_at_ms,
            receipt.received_at_ms,
            ReceiptOutcome.REFUSED,
            error.reason,
            shown(error.detail, 500),
        )
        try:
            self._give_receipt(event, refused)
        except PlatformError as failure:
            raise RecoverableError(failure.detail) from failure

    def _receipt(self, found: CustodyInput, outcome: ReceiptOutcome, enrolment_id: str = "") -> Receipt:
        return Receipt(
            owner=shown(found.owner),
            event_id=shown(found.event_id),
            kind=found.kind,
            subject_id=shown(found.subject_id),
            digest=found.digest,
            occurred_at_ms=found.occurred_at_ms,
            received_at_ms=self._now_ms(),
            outcome=outcome,
            enrolment_id=enrolment_id,
        )

    def _give_receipt(self, event: ReceivedEvent, receipt: Receipt) -> None:
        try:
            self._custody.receive(receipt, receipt_event(event, receipt))
        except PlatformError as error:
            raise RecoverableError(error.detail) from error

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _command(message: events_pb2.CustodyImageReceived) -> EnrolReference:
    is_inline = message.WhichOneof("content") == "image"
    return EnrolReference(
        watchlist_id=message.watchlist_id,
        owner=message.owner,
        subject_id=message.subject_id,
        lawful_basis=message.lawful_basis,
        captured_on=message.captured_on,
        agreement_reference=message.agreement_reference,
        image=message.image if is_inline else None,
        image_sha256="" if is_inline else message.image_sha256,
    )
