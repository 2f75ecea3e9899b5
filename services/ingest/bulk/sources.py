"""What a bulk load reads: a folder, an archive (zip, tar), or ANSI/NIST-ITL files, each as rows of images on disk.

Archives and transactions are unpacked into a folder of the caller's, into files named by number: no name from inside
an archive ever becomes a path. The caller removes the folder afterwards, for it holds people's images.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO

from services.ingest.bulk.manifest import PATH, SUBJECT, BulkRow, read_manifest, row_of
from services.ingest.bulk.type10 import FaceRecord, faces_of, read_transaction
from services.ingest.enrolling.checks import MAX_TEXT
from services.shared.errors import InvalidRequest
from services.shared.settings import MAX_IMAGE_BYTES

_LAST_OF_ALL = 2  # 2.001 and 2.002 are in every exchange: length and number
TYPE10_SUFFIXES = frozenset({".an2", ".nist", ".eft", ".nst"})
MANIFEST = "manifest.csv"
_CHUNK = 1024 * 1024
_MAX_MANIFEST_BYTES = 256 * 1024 * 1024
_MAX_TRANSACTION_BYTES = 1024**3
# Images hardly compress: what grows like this holds none.
_BOMB_RATIO, _BOMB_BYTES = 100, 1024**3
# What other programs on the disk are left.
_SPARE_BYTES = 512 * 1024**2


# What the standard library raises over an archive that is not whole, not one, or has a password.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What an archive may unpack to. One that says more than it holds, or holds more than it says, is refused."""

    members: int = 1_000_000
    member_bytes: int = MAX_IMAGE_BYTES
    total_bytes: int = 256 * 1024**3


@dataclass(frozen=True, slots=True)
class Type10Mapping:
    """Which fields of the Type-2 record hold what. Every exchange has its own; these are options of the command."""

    subject_field: int = 10
    # 0: none of them is a custody reference.
    custody_field: int = 0


def read_source(
    source: Path,
    manifest: Path | None,
    shared: Mapping[str, str],
    work: Path,
    *,
    limits: UnpackLimits | None = None,
    mapping: Type10Mapping | None = None,
) -> list[BulkRow]:
    """Every image as a row. `work`: an empty folder for what has to be unpacked. Raises InvalidRequest."""
    limits, mapping = limits or UnpackLimits(), mapping or Type10Mapping()
    if source.is_dir():
        named = manifest or source / MANIFEST
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in TYPE10_SUFFIXES)
        if files and not named.exists():
            return [row for path in files for row in _type10_rows(path, shared, work, mapping)]
        return read_manifest(named, source, shared)
    if source.suffix.lower() in TYPE10_SUFFIXES:
        return list(_type10_rows(source, shared, work, mapping))
    unpacked = _unpack(source, work, limits)
    listed = manifest or unpacked.get(MANIFEST)
    if listed is None:
        raise InvalidRequest(f"{source.name} holds no {MANIFEST}.", advice="Put one at its top, or give --manifest.")
    return [_relocated(row, unpacked) for row in read_manifest(listed, Path(), shared)]


def _relocated(row: BulkRow, unpacked: Mapping[str, Path]) -> BulkRow:
    found = unpacked.get(row.name.removeprefix("./"))
    # A file that is not in the archive is told of as any file that cannot be read.
    return BulkRow(row.line, row.name, found or Path(os.devnull) / "not-in-the-archive", row.fields)


def _type10_rows(source: Path, shared: Mapping[str, str], work: Path, mapping: Type10Mapping) -> Iterator[BulkRow]:
    folder = work / f"t10-{len(list(work.iterdir()))}"
    folder.mkdir()
    for number, face in enumerate(_faces(source), 1):
        if len(face.image) > MAX_IMAGE_BYTES:
            raise InvalidRequest(f"{source.name}: record {number} is over 32 MiB.", advice="Send smaller images.")
        subject_id = _subject_id(source, face, mapping)
        path = folder / str(number)
        path.write_bytes(face.image)
        _mark(path, hashlib.sha256(face.image).digest())
        line: dict[str, str | None] = {
            PATH: f"{source.name}#{number}",
            SUBJECT: subject_id,
            "captured_on": face.captured_on,
            "pose": face.pose,
            "custody_reference": _identifier(face.descriptive.get(mapping.custody_field, "")),
        }
        yield row_of(source, number, line, shared, path)


def _faces(source: Path) -> Sequence[FaceRecord]:
    """Raises InvalidRequest with the file's name: one of thousands is meant."""
    try:
        size_bytes = source.stat().st_size
        content = source.read_bytes() if size_bytes <= _MAX_TRANSACTION_BYTES else b""
    except OSError as error:
        raise InvalidRequest(
            f"{source} cannot be read: {error.strerror}.", advice="Check who may read it, and its disk."
        ) from error
    if size_bytes > _MAX_TRANSACTION_BYTES:
        raise InvalidRequest(f"{source.name} is over 1 GiB.", advice="Ask for several transactions.")
    try:
        return faces_of(read_transaction(content))
    except InvalidRequest as error:
        raise InvalidRequest(f"{source.name}: {error.detail}", advice=error.advice, code="type10") from error


def _subject_id(source: Path, face: FaceRecord, mapping: Type10Mapping) -> str:
    """Raises InvalidRequest when the file does not say whose image it is: two people must never become one by that."""
    text = face.descriptive.get(mapping.subject_field, "").strip()
    if not text:
        held = ", ".join(f"2.{number:03d}" for number in sorted(face.descriptive) if number > _LAST_OF_ALL) or "none"
        raise InvalidRequest(
            f"{source.name} has no subject in its Type-2 field 2.{mapping.subject_field:03d}.",
            advice=f"Give the field that holds it with --subject-field; its own fields: {held}.",
        )
    if "\N{REPLACEMENT CHARACTER}" in text:
        raise InvalidRequest(
            f"The subject in {source.name} is in a character set that the file does not name.",
            advice="Ask the sender for UTF-8 (1.015 `003`), or for 1.015 `001` where it is Latin-1.",
        )
    return text


def _identifier(text: str) -> str:
    """Nothing where the field holds items, or a text: then it is another thing in this exchange."""
    return text if text.isprintable() and len(text) <= MAX_TEXT else ""


def _unpack(source: Path, work: Path, limits: UnpackLimits) -> dict[str, Path]:
    """The archive's regular files by their names."""
    most = max(_BOMB_BYTES, _BOMB_RATIO * source.stat().st_size)
    try:
        if zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                return _store(_zip_members(archive), work, limits, most)
        with tarfile.open(source, "r:*") as archive:
            return _store(_tar_members(archive), work, limits, most)
    except _BROKEN as error:
        # The standard library lists every format that it tried, one a line.
        reason = "it is no archive, or a broken one" if "\n" in str(error) else str(error) or type(error).__name__
        raise InvalidRequest(
            f"{source.name} cannot be unpacked: {reason}.",
            advice="Give a folder, a zip or tar file without a password, or a .an2 file; is it whole?",
        ) from error


def _zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive.infolist():
        if not member.is_dir():
            with archive.open(member) as stream:
                yield member.filename, stream


def _tar_members(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in archive:
        if member.isreg():  # links and devices are no images
            stream = archive.extractfile(member)
            if stream is not None:
                with stream:
                    yield member.name, stream


def _store(members: Iterator[tuple[str, IO[bytes]]], work: Path, limits: UnpackLimits, most: int) -> dict[str, Path]:
    """`most`: what so large an archive of images can hold. Raises InvalidRequest."""
    found: dict[str, Path] = {}
    total = 0
    for number, (named, stream) in enumerate(members, 1):
        if number > limits.members:
            raise InvalidRequest(f"The archive holds more than {limits.members} files.", advice="Split it.")
        name = named.removeprefix("./")
        if name in found:
            raise InvalidRequest(
                f"The archive holds {name[:200]} twice.", advice="Take the one out that does not count."
            )
        is_manifest = name == MANIFEST
        path = work / f"{number}"
        total += _copy(stream, path, _MAX_MANIFEST_BYTES if is_manifest else limits.member_bytes, name)
        if total > limits.total_bytes:
            raise InvalidRequest(f"The archive unpacks to over {limits.total_bytes} bytes.", advice="Split it.")
        if total > most:
            raise InvalidRequest(
                f"The archive unpacks to over {_BOMB_RATIO} times its size.",
                advice="Images do not compress like that: ask the sender what it is.",
            )
        if shutil.disk_usage(work).free < _SPARE_BYTES:
            raise InvalidRequest(
                f"{work.parent} has no room to unpack the archive.",
                advice="Point TMPDIR to a disk that has, or give the folder with the images.",
            )
        found[name] = path
    return found


def _copy(stream: IO[bytes] | BufferedIOBase, path: Path, limit: int, name: str) -> int:
    size, digest = 0, hashlib.sha256()
    with path.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise InvalidRequest(
                    f"{name[:200]} in the archive is over {limit} bytes.", advice="Take it out of the archive."
                )
            digest.update(chunk)
            file.write(chunk)
    _mark(path, digest.digest())
    return size


def _mark(path: Path, digest: bytes) -> None:
    """The same image has the same key in the journal the next time; another one under the same name has another."""
    os.utime(path, ns=(0, int.from_bytes(digest[:6], "big")))
