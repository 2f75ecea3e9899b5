"""What a custody system says, as it stands in the topics: protobuf, or JSON of the same fields.

The JSON form is protobuf's own (field names as in the .proto or in camelCase, bytes in base64). It is told by the
header `content-type: application/json` or by its first character, which no message of ours has.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError

from services.rpc.v1 import events_pb2
from services.shared.consume import InvalidMessage
from services.shared.ports.event_log import ReceivedEvent

CustodyMessage = (
    events_pb2.CustodyImageReceived
    | events_pb2.CustodyDisposalChanged
    | events_pb2.CustodySubjectMerged
    | events_pb2.CustodySubjectSplit
    | events_pb2.CustodyImageWithdrawn
)
_SCHEMA_VERSION = "1"
# By the last part of the topic's name, which the owner may have put a prefix of its own before.
_KINDS: dict[str, type[CustodyMessage]] = {
    "custody-image-received": events_pb2.CustodyImageReceived,
    "custody-disposal-changed": events_pb2.CustodyDisposalChanged,
    "custody-subject-merged": events_pb2.CustodySubjectMerged,
    "custody-subject-split": events_pb2.CustodySubjectSplit,
    "custody-image-withdrawn": events_pb2.CustodyImageWithdrawn,
}


@dataclass(frozen=True, slots=True)
class CustodyInput:
    """One message with what every kind of them has. `occurred_at_ms` is 0 where an image event does not say."""

    kind: str
    message: CustodyMessage
    event_id: str
    owner: str
    subject_id: str
    occurred_at_ms: int
    digest: str


def kind_of(topic: str) -> str:
    """ "custody-image-received" of likeness.custody-image-received.v1 and of its dead letters."""
    return next((kind for kind in _KINDS if f".{kind}.v1" in f".{topic}"), "")


def parse(event: ReceivedEvent) -> CustodyInput:
    """Raises InvalidMessage with the reason."""
    version = event.headers.get("schema-version", _SCHEMA_VERSION)
    if version != _SCHEMA_VERSION:
        raise InvalidMessage("unknown_schema_version", f"schema version {version[:20]}, {_SCHEMA_VERSION} is known")
    kind = kind_of(event.topic)
    message = _message(_KINDS.get(kind, events_pb2.CustodyImageReceived), event)
    if isinstance(message, events_pb2.CustodyImageReceived) and message.WhichOneof("content") is None:
        raise InvalidMessage("malformed_message", "neither an image nor the SHA-256 of a stored one")
    return CustodyInput(
        kind=kind or "custody-image-received",
        message=message,
        event_id=message.event_id or f"{event.topic}/{event.partition}/{event.offset}",
        owner=message.owner,
        subject_id=message.subject_id,
        occurred_at_ms=_occurred_at_ms(message),
        digest=hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest(),
    )


def about(event: ReceivedEvent) -> tuple[str, str, str, int]:
    """Owner, subject and image SHA-256 of an event and when it occurred; empty and 0 where it cannot be read."""
    try:
        found = parse(event)
    except InvalidMessage:
        return "", "", hashlib.sha256(event.value).hexdigest(), 0
    message = found.message
    sha256 = ""
    if isinstance(message, events_pb2.CustodyImageReceived):
        is_inline = message.WhichOneof("content") == "image"
        sha256 = hashlib.sha256(message.image).hexdigest() if is_inline else message.image_sha256
    return message.owner, message.subject_id, sha256, found.occurred_at_ms


def _message(kind: type[CustodyMessage], event: ReceivedEvent) -> CustodyMessage:
    is_json = "json" in event.headers.get("content-type", "") or event.value[:1] == b"{"
    name = kind.DESCRIPTOR.full_name
    try:
        if not is_json:
            return kind.FromString(event.value)
        # Stricter than the standard library, whose text may hold halves of characters, which protobuf does not survive.
        fields = orjson.loads(event.value)
        if not isinstance(fields, dict):
            raise InvalidMessage("malformed_message", f"not a JSON object of {name}")
        return ParseDict(fields, kind())
    except (DecodeError, ValueError) as error:
        raise InvalidMessage("malformed_message", f"not a {name}") from error
    except ParseError as error:
        raise InvalidMessage("malformed_message", f"not a {name}: {str(error)[:200]}") from error


def _occurred_at_ms(message: CustodyMessage) -> int:
    if not message.occurred_at:
        if isinstance(message, events_pb2.CustodyImageReceived):
            return 0
        raise InvalidMessage("occurred_at_missing", "`occurred_at` is empty; it says which of two changes is the newer")
    try:
        moment = datetime.fromisoformat(message.occurred_at)
    except ValueError as error:
        raise InvalidMessage("occurred_at_malformed", "`occurred_at` is not an RFC 3339 time") from error
    if moment.tzinfo is None:
        raise InvalidMessage("occurred_at_malformed", "`occurred_at` says no time zone")
    return int(moment.timestamp() * 1000)
