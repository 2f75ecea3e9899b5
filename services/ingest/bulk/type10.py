"""ANSI/NIST-ITL 1-2011 (2013, 2015) transactions with Type-10 records: faces as police systems exchange them.

A file is a Type-1 record, which counts the others, and they follow. Tagged records begin with `T.001:<length>` and end
with FS; fields are separated by GS, subfields by RS, items by US; `T.999:` holds bytes up to the end of its record.
Types 3 to 8 are binary and begin with their length in four bytes. A length that lies is refused, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.shared.errors import InvalidRequest

FS, GS, RS, US = b"\x1c", b"\x1d", b"\x1e", b"\x1f"
MAX_RECORDS = 10_000
_BINARY_TYPES = range(3, 9)
_HEAD = re.compile(rb"(\d{1,2})\.0{0,2}1:(\d{1,10})\x1d")
_TAG = re.compile(rb"(\d{1,2})\.(\d{1,9}):")
# Subject pose (10.020) in our words; angled ones say their angle in 10.021.
POSES = {"F": "frontal", "R": "right_profile", "L": "left_profile", "A": "angled", "D": "angled"}
# An angled one would have to say its angle, which nobody told us: then nothing is said.
_POSE_CODES = {"frontal": "F", "right_profile": "R", "left_profile": "L"}
_UNKNOWN_PROFILE = "0"  # 10.013: which acquisition profile the image was taken to
_VERSION = "0502"  # ANSI/NIST-ITL 1-2011, update 2015
_UTF8 = b"003" + US + b"UTF-8"  # 1.015: texts are not in the standard's default, ASCII
_EIGHT_BIT_ASCII = "001"  # 1.015: texts are in Latin-1


@dataclass(frozen=True, slots=True)
class Record:
    """A tagged record: texts by field number, and the bytes of field 999."""

    type: int
    fields: Mapping[int, str]
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class FaceRecord:
    """One Type-10 record: the image and what is said of it. Dates are ISO 8601, empty where not said."""

    idc: str
    image: bytes
    captured_on: str = ""
    pose: str = ""
    source_agency: str = ""
    # From the transaction's Type-2 record, by field number.
    descriptive: Mapping[int, str] = field(default_factory=dict)


def read_transaction(content: bytes) -> list[Record]:
    """Every tagged record, the Type-1 first; binary records are passed over. Raises InvalidRequest.

    What is in no character set that the file could be in has U+FFFD in its text.
    """
    records: list[Record] = []
    at = 0
    expected: list[int] = [1]
    charset = "utf-8"  # of which ASCII is a part
    while at < len(content) and len(records) < MAX_RECORDS and expected:
        kind = expected.pop(0)
        if kind in _BINARY_TYPES:
            at += _binary_length(content, at)
            continue
        record, length = _tagged(content, at, charset)
        if record.type != kind:
            raise _malformed(f"a record of type {record.type} where the Type-1 record announces type {kind}")
        records.append(record)
        if kind == 1:
            expected = _announced(record)
            charset = "latin-1" if record.fields.get(15, "").startswith(_EIGHT_BIT_ASCII) else charset
        at += length
    if expected or at != len(content):
        raise _malformed(f"{len(expected)} announced records are missing, {len(content) - at} bytes are left over")
    return records


def faces_of(records: Sequence[Record]) -> list[FaceRecord]:
    """The Type-10 records that hold a face. Raises InvalidRequest when there is none."""
    descriptive = next((record.fields for record in records if record.type == 2), {})
    faces = [
        FaceRecord(
            idc=record.fields.get(2, ""),
            image=record.data,
            captured_on=_iso_date(record.fields.get(5, "")),
            pose=POSES.get(record.fields.get(20, ""), ""),
            source_agency=record.fields.get(4, ""),
            descriptive=descriptive,
        )
        for record in records
        if record.type == 10 and record.fields.get(3, "FACE") == "FACE" and record.data
    ]
    if not faces:
        raise _malformed("no Type-10 record of a face in it")
    return faces


def write_transaction(
    faces: Sequence[FaceRecord],
    *,
    agency: str,
    number: str,
    day: str,
    sizes: Sequence[tuple[int, int]],
    recipient: str = "",
) -> bytes:
    """One transaction for one subject: Type-1, Type-2, a Type-10 an image. `day` is ISO 8601, `sizes` width and height,
    `recipient` the agency that it is for, the sender itself where empty.

    Images have to be JPEG or PNG. Raises InvalidRequest.
    """
    tens = [_face_record(place, face, size) for place, (face, size) in enumerate(zip(faces, sizes, strict=True), 1)]
    descriptive = {2: "00", **(faces[0].descriptive if faces else {})}
    counted = [b"1" + US + str(1 + len(tens)).encode(), b"2" + US + b"00"]
    counted += [b"10" + US + f"{place:02d}".encode() for place in range(1, len(tens) + 1)]
    head: dict[int, bytes] = {
        2: _VERSION.encode(),
        3: RS.join(counted),
        4: b"FACE",
        5: day.replace("-", "").encode(),
        7: (recipient or agency).encode(),
        8: agency.encode(),
        9: number.encode(),
        11: b"00.00",
        12: b"00.00",
    }
    texts = {number_: text.encode() for number_, text in descriptive.items()}
    agencies = [face.source_agency.encode() for face in faces]
    if not all(text.isascii() for text in [*texts.values(), *head.values(), *agencies]):
        head[15] = _UTF8
    return b"".join([_encode(1, head), _encode(2, texts), *tens])


def _face_record(place: int, face: FaceRecord, size: tuple[int, int]) -> bytes:
    is_jpeg, is_png = face.image.startswith(b"\xff\xd8\xff"), face.image.startswith(b"\x89PNG")
    if not (is_jpeg or is_png):
        raise InvalidRequest("A Type-10 record takes JPEG or PNG.", advice="Convert the image first.")
    width, height = size
    fields = {
        2: f"{place:02d}",
        3: "FACE",
        4: face.source_agency,
        5: face.captured_on.replace("-", ""),
        6: str(width),
        7: str(height),
        8: "0",
        9: "1",
        10: "1",
        11: "JPEGB" if is_jpeg else "PNG",
        12: "SRGB",
        13: _UNKNOWN_PROFILE,
        20: _POSE_CODES.get(face.pose, ""),
    }
    return _encode(10, {number: text.encode() for number, text in fields.items()}, face.image)


def _encode(kind: int, fields: Mapping[int, bytes], data: bytes = b"") -> bytes:
    parts = [f"{kind}.{number:03d}:".encode() + text for number, text in sorted(fields.items()) if text]
    if data:
        parts.append(f"{kind}.999:".encode() + data)
    body = GS.join(parts) + FS
    # The length counts its own digits.
    length = 0
    while (found := len(f"{kind}.001:{length}".encode() + GS + body)) != length:
        length = found
    return f"{kind}.001:{length}".encode() + GS + body


def _tagged(content: bytes, at: int, charset: str) -> tuple[Record, int]:
    head = _HEAD.match(content, at)
    if head is None:
        raise _malformed(f"no record begins at byte {at}")
    kind, length = int(head[1]), int(head[2])
    if length < len(head[0]) or at + length > len(content) or content[at + length - 1 : at + length] != FS:
        raise _malformed(f"the record at byte {at} does not end where its length says")
    fields: dict[int, str] = {}
    place, end = head.end(), at + length - 1
    while place < end:
        tag = _TAG.match(content, place, end)
        if tag is None or int(tag[1]) != kind:
            raise _malformed(f"no field of type {kind} at byte {place}")
        number = int(tag[2])
        if number == 999:
            return Record(kind, fields, content[tag.end() : end]), length
        stop = content.find(GS, tag.end(), end)
        stop = end if stop < 0 else stop
        fields[number] = content[tag.end() : stop].decode(charset, "replace")
        place = stop + 1
    return Record(kind, fields), length


def _announced(record: Record) -> list[int]:
    """The types of the records that follow, from 1.003."""
    entries = record.fields.get(3, "").split("\x1e")
    try:
        kinds = [int(entry.split("\x1f")[0]) for entry in entries]
    except ValueError as error:
        raise _malformed("1.003 does not count the records") from error
    if not kinds or kinds[0] != 1 or len(kinds) > MAX_RECORDS:
        raise _malformed("1.003 does not count the records")
    return kinds[1:]


def _binary_length(content: bytes, at: int) -> int:
    length = int.from_bytes(content[at : at + 4], "big")
    if length < 4 or at + length > len(content):
        raise _malformed(f"the binary record at byte {at} is longer than the file")
    return length


def _iso_date(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if re.fullmatch(r"\d{8}", text) else ""


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"That is no ANSI/NIST-ITL transaction: {why}.", advice="Ask the sender for the file again.", code="type10"
    )
