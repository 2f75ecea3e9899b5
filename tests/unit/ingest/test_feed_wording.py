"""Words of a custody system that would stop the feed, freeze a record or reach nobody are refused before anything is
done by them, with a receipt that can be stored."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from services.ingest.feed.custody_feed import CustodyFeed
from services.ingest.life.custody import Receipt
from services.shared.consume import InvalidMessage
from services.shared.ports.event_log import ReceivedEvent
from tests.unit.ingest.test_checks import FixedClock

NOW = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
SAID = {"event_id": "e-1", "occurred_at": "2026-06-01T10:00:00+01:00", "owner": "northshire", "subject_id": "S-1"}
ENDED = {"custody_reference": "C/1", "disposal": "charged", "disposal_on": "2026-05-31"}
MERGED, SPLIT = {"into_subject_id": "S-2"}, {"into_subject_id": "S-2", "image_sha256s": ["a" * 64]}
BACK = {"reason": "no further action", "image_sha256": "a" * 64}


class Turns:
    def alone(self, owner: str) -> nullcontext[None]:
        return nullcontext()

    shared = alone


class Receipts:
    """Where nothing but a receipt is written: every other question fails the test."""

    def __init__(self) -> None:
        self.given: list[Receipt] = []

    def receive(self, receipt: Receipt, event: object) -> None:
        self.given.append(receipt)


def feed(receipts: Receipts) -> CustodyFeed:
    nothing: Any = cast("Any", object())
    return CustodyFeed(
        acceptance=nothing,
        ledger=nothing,
        custody=cast("Any", receipts),
        turns=cast("Any", Turns()),
        withdrawal=nothing,
        erasing=nothing,
        register=nothing,
        watchlists=lambda: (),
        clock=FixedClock(NOW),
        owners=(),
    )


def event(kind: str, fields: dict[str, Any]) -> ReceivedEvent:
    value = json.dumps({**SAID, **fields}).encode()
    return ReceivedEvent(f"likeness.custody-{kind}.v1", 0, 7, "northshire/S-1", value, {})


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        # What PostgreSQL refuses would be tried again for ever, and everything behind it would wait.
        ("disposal-changed", {**ENDED, "subject_id": "S\x001"}, "malformed_message"),
        ("disposal-changed", {**ENDED, "owner": "north\x00shire"}, "malformed_message"),
        ("disposal-changed", {**ENDED, "custody_reference": "C" * 201}, "malformed_message"),
        ("image-received", {"image": "AAAA", "subject_id": "S\x001"}, "malformed_message"),
        ("image-withdrawn", {**BACK, "reason": "r" * 201}, "malformed_message"),
        ("image-received", {"image": "AAAA", "pose": "p" * 33}, "malformed_message"),
        # One day that is none ended the list of due reviews for everybody of the owner.
        ("disposal-changed", {**ENDED, "disposal_on": "yesterday"}, "disposal_on_malformed"),
        ("disposal-changed", {**ENDED, "disposal_on": "20260531"}, "disposal_on_malformed"),
        ("disposal-changed", {**ENDED, "disposal_on": "2999-01-01"}, "disposal_on_in_future"),
        ("image-received", {"image": "AAAA", "disposal_on": "0001-01-01"}, "disposal_on_malformed"),
        # What occurred last counts: what will occur in the year 9999 would count for ever.
        ("disposal-changed", {**ENDED, "occurred_at": "9999-12-31T23:59:59Z"}, "occurred_at_in_future"),
        ("image-withdrawn", {**BACK, "occurred_at": "2026-06-02T09:00:01Z"}, "occurred_at_in_future"),
        ("subject-merged", {**MERGED, "occurred_at": "2027-06-01T09:00:00Z"}, "occurred_at_in_future"),
        # Spelled otherwise it would be applied to nobody, and told to be applied.
        ("image-withdrawn", {**BACK, "image_sha256": "A" * 64}, "malformed_message"),
        ("image-withdrawn", {**BACK, "subject_id": "Rene\u0301"}, "malformed_message"),
        ("image-withdrawn", {**BACK, "subject_id": "S-1 "}, "malformed_message"),
        ("subject-split", {**SPLIT, "image_sha256s": ["a" * 64, "a.jpg"]}, "malformed_message"),
        ("subject-split", {**SPLIT, "image_sha256s": ["a" * 64] * 1001}, "malformed_message"),
        ("subject-merged", {"into_subject_id": "S-2\n"}, "malformed_message"),
        ("disposal-changed", {**ENDED, "disposal": "hanged"}, "unknown_disposal"),
        ("image-received", {"image": "AAAA", "birth_band": "17"}, "unknown_birth_band"),
    ],
)
def test_words_that_cannot_be_acted_on_are_refused_whole(kind: str, fields: dict[str, Any], reason: str) -> None:
    receipts = Receipts()
    with pytest.raises(InvalidMessage) as refused:
        feed(receipts).handle(event(kind, fields))
    assert refused.value.reason == reason
    [receipt] = receipts.given
    assert (receipt.reason, receipt.event_id) == (reason, "e-1")
    assert all(text.isprintable() for text in (receipt.owner, receipt.subject_id, receipt.detail))


def test_a_receipt_of_what_cannot_be_read_can_be_stored() -> None:
    receipts = Receipts()
    with pytest.raises(InvalidMessage):
        feed(receipts).handle(
            ReceivedEvent("likeness.custody-image-received.v1", 0, 7, "nor\x00th/S\x001", b"\xff", {})
        )
    assert (receipts.given[0].owner, receipts.given[0].subject_id) == ("nor\ufffdth", "S\ufffd1")


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("disposal-changed", ENDED),
        # A clock of British summer time that says it is UTC, and a record that ended today.
        ("disposal-changed", {**ENDED, "occurred_at": "2026-06-01T10:00:00Z", "disposal_on": "2026-06-02"}),
        ("subject-merged", MERGED),
        ("subject-split", SPLIT),
        ("image-withdrawn", {"subject_id": "Ren\u00e9"}),
    ],
)
def test_what_may_be_acted_on_comes_to_the_receipts(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(AttributeError, match="receipt"):
        feed(Receipts()).handle(event(kind, fields))
