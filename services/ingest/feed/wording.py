"""What a custody system's words have to be, looked at before anything is done by them: a message counts whole, or not.

A word that the database refuses would stop the feed for everybody, a day that is none the list of due reviews.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from google.protobuf.descriptor import FieldDescriptor

from services.ingest.enrolling.checks import MAX_TEXT, has_one_spelling
from services.ingest.feed.messages import CustodyInput, CustodyMessage
from services.ingest.life.custody import BIRTH_BANDS, DISPOSALS
from services.rpc.v1 import events_pb2
from services.shared.consume import InvalidMessage

# Of two changes the one that occurred later counts: one of the far future would count for ever. Clocks are off by
# minutes, or by a time zone.
MAX_AHEAD = timedelta(days=1)
MAX_DIGESTS = 1000  # of one split; each is a change of its own
_EARLIEST = date(1900, 1, 1)
_IDENTIFIERS = frozenset({"owner", "subject_id", "into_subject_id", "custody_reference"})
_DIGESTS = frozenset({"image_sha256", "image_sha256s"})
_SHORTER = {"pose": 32}  # as its column
_SHA256 = re.compile("[0-9a-f]{64}")


def check_words(found: CustodyInput, now: datetime) -> None:
    """Raises InvalidMessage:

    1. every text is short and printable, an identifier has one spelling, a digest is one in lower case: written
       otherwise it would be applied to nobody, and nobody would be told;
    2. what has a closed list is of it;
    3. it did not occur, nor end, in the future.
    """
    for name, text in _texts(found.message):
        _check_text(name, text)
    _check_lists(found.message)
    if found.occurred_at_ms > (now + MAX_AHEAD).timestamp() * 1000:
        raise InvalidMessage(
            "occurred_at_in_future",
            "`occurred_at` lies more than a day ahead; set the custody system's clock, then send it again",
        )
    disposal_on: str = getattr(found.message, "disposal_on", "")
    if disposal_on:
        _check_day("disposal_on", disposal_on, (now.astimezone(UTC) + MAX_AHEAD).date())


def shown(text: str, most: int = MAX_TEXT) -> str:
    """As a receipt repeats what a message said, whatever that is."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:most])


def _texts(message: CustodyMessage) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_STRING:
            continue
        if isinstance(value, str):
            yield field.name, value
            continue
        if len(value) > MAX_DIGESTS:
            raise InvalidMessage("malformed_message", f"`{field.name}` names over {MAX_DIGESTS}; send several events")
        for text in value:
            yield field.name, text


def _check_text(name: str, text: str) -> None:
    longest = _SHORTER.get(name, MAX_TEXT)
    if len(text) > longest or not text.isprintable():
        raise InvalidMessage(
            "malformed_message", f"`{name}` is longer than {longest} characters or holds control characters"
        )
    if name in _IDENTIFIERS and (text != text.strip() or not has_one_spelling(text)):
        raise InvalidMessage(
            "malformed_message", f"`{name}` has spaces around it or is not in Unicode's composed form (NFC)"
        )
    if name in _DIGESTS and not _SHA256.fullmatch(text):
        raise InvalidMessage("malformed_message", f"`{name}` is no SHA-256 in 64 lower-case hex digits")


def _check_lists(message: CustodyMessage) -> None:
    disposal: str = getattr(message, "disposal", "")
    is_wanted = isinstance(message, events_pb2.CustodyDisposalChanged)
    if (disposal or is_wanted) and disposal not in DISPOSALS:
        raise InvalidMessage("unknown_disposal", f"the disposals are {', '.join(sorted(DISPOSALS))}")
    birth_band: str = getattr(message, "birth_band", "")
    if birth_band and birth_band not in BIRTH_BANDS:
        raise InvalidMessage("unknown_birth_band", f"the bands are {', '.join(sorted(BIRTH_BANDS))}")


def _check_day(name: str, text: str, latest: date) -> None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day < _EARLIEST or day.isoformat() != text:
        raise InvalidMessage(f"{name}_malformed", f"`{name}` is no day as YYYY-MM-DD")
    if day > latest:
        raise InvalidMessage(f"{name}_in_future", f"`{name}` lies in the future; it is the day on which it ended")
