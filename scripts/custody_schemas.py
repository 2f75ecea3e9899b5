"""Write docs/schemas: the JSON form of what custody systems send and are sent, from the proto files.

python scripts/custody_schemas.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.ingest.life.custody import BIRTH_BANDS, DISPOSALS, ReceiptOutcome
from services.rpc.v1 import events_pb2

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
_TEXT = {"type": "string", "maxLength": 200}
_DATE = {"type": "string", "format": "date"}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TIME = {"type": "string", "format": "date-time"}
_FIELDS: dict[str, dict[str, Any]] = {
    "occurred_at": {**_TIME, "description": "When it happened at the owner's; decides which of two changes is newer."},
    "received_at": _TIME,
    "event_id": {**_TEXT, "description": "The producer's own; the same again changes nothing."},
    "captured_on": _DATE,
    "disposal_on": _DATE,
    "disposal": {"enum": ["", *sorted(DISPOSALS)]},
    "birth_band": {"enum": ["", *sorted(BIRTH_BANDS)], "description": "Age at capture; never a date of birth."},
    "image": {"type": "string", "contentEncoding": "base64", "description": "The file, at most 32 MiB before base64."},
    "image_sha256": {**_SHA256, "description": "Of an image that is in the image store."},
    "is_notice_given": {"type": "boolean", "description": "false is refused; leave it out where it is not known."},
    "outcome": {"enum": [outcome.value for outcome in ReceiptOutcome]},
}
_REQUIRED = {
    "CustodyImageReceived": ["watchlist_id", "owner", "subject_id", "lawful_basis", "captured_on"],
    "CustodyDisposalChanged": ["occurred_at", "owner", "subject_id", "custody_reference", "disposal"],
    "CustodySubjectMerged": ["occurred_at", "owner", "subject_id", "into_subject_id"],
    "CustodySubjectSplit": ["occurred_at", "owner", "subject_id", "into_subject_id", "image_sha256s"],
    "CustodyImageWithdrawn": ["occurred_at", "owner", "subject_id"],
    "CustodyEventReceived": ["receipt_id", "topic", "outcome"],
}
TOPICS = {
    "custody-image-received": "CustodyImageReceived",
    "custody-disposal-changed": "CustodyDisposalChanged",
    "custody-subject-merged": "CustodySubjectMerged",
    "custody-subject-split": "CustodySubjectSplit",
    "custody-image-withdrawn": "CustodyImageWithdrawn",
    "custody-event-received": "CustodyEventReceived",
}


def schema_of(topic: str, message: Descriptor) -> dict[str, Any]:
    """The JSON schema of one topic's messages."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:likeness:{topic}:v1",
        "title": f"likeness.{topic}.v1",
        "type": "object",
        "additionalProperties": False,
        "required": _REQUIRED[message.name],
        "properties": {field.name: _property(message.name, field) for field in message.fields},
    }
    if message.name == "CustodyImageReceived":
        schema["oneOf"] = [{"required": ["image"]}, {"required": ["image_sha256"]}]
    return schema


def _property(message: str, field: FieldDescriptor) -> dict[str, Any]:
    if field.name == "image_sha256" and message == "CustodyImageWithdrawn":
        return {"type": "string", "pattern": "^([0-9a-f]{64})?$", "description": "Empty: every image of the subject."}
    if field.name in _FIELDS:
        return _FIELDS[field.name]
    if field.name == "image_sha256s":
        return {"type": "array", "items": _SHA256, "minItems": 1}
    kinds = {FieldDescriptor.TYPE_BOOL: "boolean", FieldDescriptor.TYPE_INT32: "integer"}
    if field.type == FieldDescriptor.TYPE_INT64:
        return {"type": "string", "description": "A number, as text, as protobuf's JSON has it."}
    return {"type": kinds[field.type]} if field.type in kinds else dict(_TEXT)


def documents() -> dict[Path, str]:
    """Every file and what has to stand in it."""
    return {
        FOLDER / f"{topic}.v1.schema.json": json.dumps(
            schema_of(topic, events_pb2.DESCRIPTOR.message_types_by_name[name]), indent=2
        )
        + "\n"
        for topic, name in TOPICS.items()
    }


def main() -> int:
    wrong = [path for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        print("\n".join(f"not as generated: {path.name}" for path in wrong))
        return 1 if wrong else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in documents().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
