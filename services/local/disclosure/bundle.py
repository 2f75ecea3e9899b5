"""A disclosure bundle as it is read: typed, and refused where it is something else."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.audit.verification import Checkpoint, parse_checkpoint

BUNDLE_FORMAT = "likeness.disclosure.v1"


@dataclass(frozen=True, slots=True)
class BundledEntry:
    """One entry of the log: its position, exact bytes, inclusion proof, and what it says."""

    sequence: int
    canonical: bytes
    path: Sequence[bytes]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bundle:
    """`answer_text` is the answer byte for byte; `answer` what it says."""

    search_id: str
    made_at: str
    original_sha256: str
    enhancement: Sequence[Any]
    probe_sha256: str
    probe: bytes
    answer_text: bytes
    answer: Mapping[str, Any]
    adjudications: Sequence[Mapping[str, Any]]
    entries: Sequence[BundledEntry]
    checkpoint: Checkpoint
    # Key id -> PEM, and key id -> the document by which the key before vouches for it, oldest first.
    keys: Mapping[str, str]
    endorsements: Mapping[str, str]
    # Who made it, and the approval by a second person; empty in bundles of before there were approvals.
    made_by: str
    force: str
    reason: str
    approval: Mapping[str, Any]
    watermark: str
    # What was signed in casework, with every remark; empty where it was not fetched.
    judgements: Sequence[Mapping[str, Any]]
    # How many older looks, refusals and acts the log holds beside the entries: told, not proven.
    counted: int = 0

    @property
    def candidates(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.answer["candidates"]
        return found


def read_bundle(path: Path) -> Bundle:
    """ValueError that says what is wrong when the file is no bundle of this form."""
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_once)
        _require_form(value["format"])
        answer_text = str(value["answer"]).encode()
        return Bundle(
            search_id=str(value["search_id"]),
            made_at=str(value["made_at"]),
            original_sha256=str(value["original_sha256"]),
            enhancement=list(value["enhancement"]),
            probe_sha256=str(value["probe"]["sha256"]),
            probe=base64.b64decode(value["probe"]["content_base64"], validate=True),
            answer_text=answer_text,
            answer=_object(json.loads(answer_text)),
            adjudications=[_object(one) for one in value["adjudications"]],
            entries=[_entry(one) for one in value["audit"]["entries"]],
            checkpoint=parse_checkpoint(json.dumps(value["audit"]["checkpoint"])),
            keys={str(key["key_id"]): str(key["public_key"]) for key in value["audit"]["keys"]},
            endorsements={str(key["key_id"]): str(key.get("endorsement", "")) for key in value["audit"]["keys"]},
            made_by=str(value["made_by"]["person_id"]),
            force=str(value["made_by"]["force"]),
            reason=str(value["reason"]),
            approval=_object(value.get("approval", {})),
            watermark=str(value.get("watermark", "")),
            judgements=[_object(one) for one in value.get("judgements", ())],
            counted=sum(int(one["count"]) for one in value["audit"].get("counted", ())),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, binascii.Error) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is no disclosure bundle: {what}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a name that stands twice one reader takes the first and another the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it says {next(name for name in names if names.count(name) > 1)[:40]!r} twice")
    return found


def _require_form(form: object) -> None:
    if form != BUNDLE_FORMAT:
        raise ValueError(f"it is of the form {form!r}, not {BUNDLE_FORMAT}")


def _entry(value: Mapping[str, Any]) -> BundledEntry:
    canonical = str(value["canonical"]).encode()
    path = [bytes.fromhex(part) for part in value["path"]]
    return BundledEntry(int(value["sequence"]), canonical, path, _object(json.loads(canonical)))


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object is expected where {str(value)[:40]!r} stands")
    return value
