"""Verification of an audit log, from an export or a store, without the services.

This module needs Python and the `cryptography` package and nothing else: a copy of this one file is a complete
verifier (`python verification.py EXPORT --witness DIR`). `verify` makes these checks, and the code repeats their
numbers:

 1. The source can be read, is of a known version, and names its log and its public keys; the id of every key is the
    SHA-256 of its DER form.
 2. Every entry is in the canonical form `likeness.audit-entry.v1`: one value, one encoding.
 3. Sequence numbers run from 0 without a gap, in order.
 4. No entry_id occurs twice.
 5. What is kept beside an entry is what its bytes give: in an export its leaf hash; in a store its leaf hash, the
    hashes of the subtrees that it closes, and the columns that the log is searched by.
 6. Every checkpoint names this log and is signed by a trusted key: the keys given or the witness's, and those that the
    log brought into use with the endorsement of a trusted key before it; otherwise the source's own, and then the
    report says that nothing outside the source vouches for them.
 7. The Merkle root (RFC 6962) of the first `tree_size` entries is the root that the checkpoint signs, and no
    checkpoint covers more entries than there are.
 8. The same for every witnessed checkpoint, from the witness folder or given by hand: so a cut tail and a log that
    was written anew from the start are found even if whoever did it holds the signing key.
 9. The newest checkpoint covers every entry. An export must satisfy this; in a store that is being written the
    entries behind the newest checkpoint are counted and reported instead.

What it does not prove is in `NOT_PROVEN`, and printed with every report.

Every failed check raises VerificationFailed, which names the check and the first sequence number that is bad or no
longer proven. Nothing returns a truth value that could be forgotten.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

ENTRY_FORMAT: Final = "likeness.audit-entry.v1"
CHECKPOINT_FORMAT: Final = "likeness.audit-checkpoint.v1"
EXPORT_FORMAT: Final = "likeness.audit-export.v1"
ENDORSEMENT_FORMAT: Final = "likeness.audit-key-endorsement.v1"
KEY_ACTIVITY: Final = "audit_key"

CHECKS: Final[Mapping[int, str]] = {
    1: "The source is readable and names its log and keys",
    2: "Every entry is in canonical form",
    3: "Sequence numbers run from 0 without a gap",
    4: "No entry id occurs twice",
    5: "Stored hashes and columns agree with the entries",
    6: "Every checkpoint is signed by a trusted key",
    7: "Every checkpoint's root is the root of the entries",
    8: "Every witnessed checkpoint's root is the root of the entries",
    9: "The newest checkpoint covers every entry",
}

NOT_PROVEN: Final = (
    "that what an entry says is true, or that everything that was done was recorded: the log proves what was written "
    "and that it has not been changed since",
    "that times are right: they are the clocks of the services; the order is the sequence",
    "that entries behind the newest witnessed checkpoint are the ones first written: whoever holds the store and the "
    "signing key could have replaced those",
    "who held the signing key, or that the witness was out of reach of whoever could write to the store",
)

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
HASH_BYTES: Final = 32


class VerificationFailed(Exception):
    """A check failed. `sequence` is the first bad entry, or the first that is no longer proven."""

    def __init__(self, check: int, sequence: int | None, detail: str) -> None:
        super().__init__(detail)
        self.check = check
        self.sequence = sequence
        self.detail = detail


# --- RFC 6962 ---------------------------------------------------------------------------------------------------------


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 section 2.1: the prefix keeps a leaf from passing for an inner node."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of_peaks(peaks: Sequence[bytes]) -> bytes:
    """The root of a tree from the roots of its complete subtrees, biggest (leftmost) first."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


class Frontier:
    """The complete subtrees that a tree of `size` leaves is made of: all that adding leaves needs to know."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self._peaks = list(peaks)

    def copy(self) -> Frontier:
        return Frontier(self.size, self._peaks)

    def append(self, leaf: bytes) -> bytes:
        """Add a leaf. Returns its hash and those of the complete subtrees that it closes, smallest first."""
        closed = current = leaf
        self.size = remaining = self.size + 1
        while not remaining & 1:
            current = node_hash(self._peaks.pop(), current)
            closed += current
            remaining >>= 1
        self._peaks.append(current)
        return closed

    def root(self) -> bytes:
        return root_of_peaks(self._peaks)


def check_inclusion(leaf: bytes, sequence: int, tree_size: int, path: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2; VerificationFailed unless the path leads from the leaf to the root."""
    if not 0 <= sequence < tree_size:
        raise VerificationFailed(7, sequence, f"sequence {sequence} is not in a tree of {tree_size} entries")
    place, last, current = sequence, tree_size - 1, leaf
    for sibling in path:
        if last == 0:
            raise VerificationFailed(7, sequence, "the inclusion proof is too long")
        if place & 1 or place == last:
            current = node_hash(sibling, current)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or current != root:
        raise VerificationFailed(7, sequence, "the inclusion proof does not lead to the root")


def check_consistency(
    first_size: int, second_size: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2; VerificationFailed unless the second tree extends the first."""

    def fail(why: str) -> VerificationFailed:
        return VerificationFailed(7, first_size, f"the consistency proof {first_size} -> {second_size} {why}")

    if not 0 <= first_size <= second_size:
        raise fail("asks for sizes in the wrong order")
    if first_size in (0, second_size):
        expected = EMPTY_ROOT if first_size == 0 else second_root
        if path or first_root != expected:
            raise fail("does not hold")
        return
    hashes = list(path)
    if first_size & (first_size - 1) == 0:
        hashes.insert(0, first_root)  # a complete subtree: its root stands for itself and is left out of the path
    if not hashes:
        raise fail("is empty")
    place, last = first_size - 1, second_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise fail("is too long")
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last != 0 or old != first_root or new != second_root:
        raise fail("does not hold")


# --- Canonical forms --------------------------------------------------------------------------------------------------

# RFC 8785 strings: shortest escapes only. Possessive quantifiers keep hostile input from backtracking.
_CHARACTERS = r'(?:[^"\\\x00-\x1f]++|\\["\\bfnrt]|\\u00(?:0[0-7bef]|1[0-9a-f]))*+'
_TEXT = f'"{_CHARACTERS}"'
_CAPTURED = f'"({_CHARACTERS})"'
_LIST = rf"\[(?:{_TEXT}(?:,{_TEXT})*+)?+\]"
_MAP = rf"\{{(?:{_TEXT}:{_TEXT}(?:,{_TEXT}:{_TEXT})*+)?+\}}"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_ENTRY = re.compile(
    rf'\{{"activity":{_CAPTURED},"activity_id":{_CAPTURED},'
    rf'"actor":\{{"force":{_TEXT},"person_id":{_CAPTURED},"roles":{_LIST}\}},'
    rf'"case_reference":{_CAPTURED},"details":({_MAP}),"entry_id":"({_ID})",'
    rf'"format":"{re.escape(ENTRY_FORMAT)}","objects":{_LIST},"occurred_at":"{_TIME}",'
    r'"operation":"(?:COLLECTION|ALTERATION|CONSULTATION|DISCLOSURE|COMBINATION|ERASURE)",'
    r'"phase":"(INTENT|DONE|REFUSED|FAILED|UNKNOWN)",'
    rf'"purpose":{_TEXT},"recipients":{_LIST},"recorded_at":"({_TIME})",'
    rf'"sequence":(0|[1-9][0-9]{{0,15}}),"service":{_TEXT}\}}',
    re.ASCII,
)
_HEX_HASH = re.compile(r"[0-9a-f]{64}")
_CHECKPOINT_TEXTS = {"log_id": re.compile(_ID), "created_at": re.compile(_TIME), "key_id": _HEX_HASH}
_keys_of = json.JSONDecoder(object_pairs_hook=lambda pairs: [key for key, _ in pairs]).raw_decode


class EntryFacts(NamedTuple):  # a tuple, because a million of them are made
    """What verification needs of an entry; texts as they stand between the quotes."""

    activity: str
    activity_id: str
    person_id: str
    case_reference: str
    entry_id: str
    phase: str
    recorded_at: str
    sequence: int


def parse_entry(entry: bytes, position: int) -> EntryFacts:
    """Check 2: the bytes are an entry in canonical form."""
    try:
        match = _ENTRY.fullmatch(entry.decode("utf-8"))
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise VerificationFailed(2, position, f"entry {position} is not in canonical form")
    activity, activity_id, person_id, case_reference, details, entry_id, phase, recorded_at, sequence = match.groups()
    if details != "{}" and not _are_in_order(_keys_of(details)[0]):
        raise VerificationFailed(2, position, f"the details of entry {position} are not in canonical order")
    return EntryFacts(activity, activity_id, person_id, case_reference, entry_id, phase, recorded_at, int(sequence))


def _are_in_order(keys: list[str]) -> bool:
    """Whether keys are in the order of RFC 8785 (UTF-16 code units), none twice."""
    if not "".join(keys).isascii():
        units = [key.encode("utf-16-be") for key in keys]
        return all(first < second for first, second in pairwise(units))
    return keys == sorted(set(keys))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed tree head. `root_hash` 32 bytes, `signature` 64 bytes, `key_id` 64 hex digits."""

    log_id: str
    tree_size: int
    root_hash: bytes
    created_at: str
    key_id: str
    signature: bytes = b""

    def body(self) -> dict[str, str | int]:
        return {
            "created_at": self.created_at,
            "format": CHECKPOINT_FORMAT,
            "key_id": self.key_id,
            "log_id": self.log_id,
            "root_hash": self.root_hash.hex(),
            "tree_size": self.tree_size,
        }

    def signed_bytes(self) -> bytes:
        """The canonical bytes that the signature covers."""
        return json.dumps(self.body(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def document(self) -> bytes:
        """The checkpoint as one line of JSON, as it stands in exports, at the witness and in REST answers."""
        return b'{"checkpoint":' + self.signed_bytes() + b',"signature":"' + self.signature.hex().encode() + b'"}'


def parse_checkpoint(document: bytes | str) -> Checkpoint:
    """Read the form that `Checkpoint.document` writes; ValueError when it is something else."""
    value = json.loads(document)
    if not isinstance(value, dict) or set(value) != {"checkpoint", "signature"}:
        raise ValueError("not a checkpoint")
    body = value["checkpoint"]
    if not isinstance(body, dict) or body.get("format") != CHECKPOINT_FORMAT:
        raise ValueError(f"not a checkpoint of the form {CHECKPOINT_FORMAT}")
    signature, root_hash = bytes.fromhex(str(value["signature"])), bytes.fromhex(str(body.get("root_hash")))
    checkpoint = make_checkpoint({**body, "root_hash": root_hash, "signature": signature})
    if checkpoint.body() != body:
        raise ValueError("a checkpoint with other fields than it should have")
    return checkpoint


def make_checkpoint(values: Mapping[str, object]) -> Checkpoint:
    """A checkpoint from values that nobody has looked at yet; ValueError names what is wrong with them."""
    for name, pattern in _CHECKPOINT_TEXTS.items():
        text = values.get(name)
        if not isinstance(text, str) or not pattern.fullmatch(text):
            raise ValueError(f"{name} of a checkpoint is {text!r}")
    root_hash, signature = values.get("root_hash"), values.get("signature")
    if not isinstance(root_hash, bytes) or len(root_hash) != HASH_BYTES or not isinstance(signature, bytes):
        raise ValueError("a checkpoint whose root or signature is no hash and no signature")
    texts = {name: str(values[name]) for name in _CHECKPOINT_TEXTS}
    return Checkpoint(**texts, tree_size=_natural(values.get("tree_size")), root_hash=root_hash, signature=signature)


def check_signature(head: Checkpoint, log_id: str, trusted: Mapping[str, Ed25519PublicKey]) -> None:
    """ValueError that says what is wrong, unless a trusted key signed the checkpoint for this log."""
    if head.log_id != log_id:
        raise ValueError(f"is of the log {head.log_id}, this is the log {log_id}")
    key = trusted.get(head.key_id)
    if key is None:
        raise ValueError(f"is signed by a key that is not trusted ({head.key_id})")
    try:
        key.verify(head.signature, head.signed_bytes())
    except InvalidSignature as error:
        raise ValueError("has a signature that is not valid") from error


def endorsement_bytes(log_id: str, old_key: str, new_key: str, endorsed_at: str) -> bytes:
    """The canonical bytes by which the key with the id `old_key` says that `new_key` follows it in this log."""
    body = {
        "endorsed_at": endorsed_at,
        "format": ENDORSEMENT_FORMAT,
        "log_id": log_id,
        "new_key": new_key,
        "old_key": old_key,
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def endorsed_key(
    document: str, pem: str, log_id: str, trusted: Mapping[str, Ed25519PublicKey]
) -> tuple[str, Ed25519PublicKey]:
    """A new key and its id, vouched for by a trusted one; ValueError that says what is wrong."""
    value = json.loads(document)
    if not isinstance(value, dict) or not isinstance(value.get("endorsement"), dict):
        raise ValueError("no endorsement of a key")  # noqa: TRY004 - a wrong value in a file, not a wrong call
    body, key = value["endorsement"], read_public_key(pem.encode())
    texts = {name: str(body.get(name)) for name in ("log_id", "old_key", "new_key", "endorsed_at")}
    if texts["log_id"] != log_id or texts["new_key"] != key_id_of(key):
        raise ValueError("the endorsement is of another log or another key")
    if texts["old_key"] not in trusted:
        raise ValueError(f"the endorsement is by a key that is not trusted ({texts['old_key']})")
    try:
        trusted[texts["old_key"]].verify(bytes.fromhex(str(value.get("signature"))), endorsement_bytes(**texts))
    except InvalidSignature as error:
        raise ValueError("the endorsement has a signature that is not valid") from error
    return texts["new_key"], key


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a size")
    return value


def key_id_of(key: Ed25519PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER | sha256sum` prints it."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """ValueError when the PEM text is not an Ed25519 public key."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"not a public key in PEM form: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")  # noqa: TRY004 - a wrong value in a file, not a wrong call
    return key


# --- Sources ----------------------------------------------------------------------------------------------------------

# The columns that a store is searched by, in the order of `_Row.columns`.
_COLUMNS = ("entry_id", "activity", "activity_id", "person_id", "case_reference", "recorded_at")
_HEAD_COLUMNS = ("log_id", "tree_size", "root_hash", "created_at", "key_id", "signature")


class _Row(NamedTuple):
    """One entry as a source holds it: canonical bytes, the hashes kept beside them, the columns (stores only)."""

    entry: bytes
    hashes: bytes
    columns: tuple[object, ...] | None


@dataclass(frozen=True, slots=True)
class _Source:
    """A log as it can be read once, from the start; every checkpoint follows the last entry that it covers."""

    kind: str
    log_id: str
    keys: Mapping[str, Ed25519PublicKey]
    expected_entries: int
    items: Iterator[_Row | Checkpoint]
    close: Callable[[], None]


def _keys_by_id(declared: Iterable[tuple[object, object]]) -> dict[str, Ed25519PublicKey]:
    """Check 1: the id of every key is its hash."""
    keys = {}
    for key_id, pem in declared:
        key = read_public_key(str(pem).encode())
        if key_id_of(key) != key_id:
            raise ValueError(f"the key {key_id!r} is another key than its id says")
        keys[key_id_of(key)] = key
    return keys


def _open_export(path: Path) -> _Source:
    stream = path.open("rb")
    try:
        log_id, keys, entries = _parse_header(stream.readline())
    except BaseException:
        stream.close()
        raise
    return _Source("export", log_id, keys, entries, _export_items(stream), stream.close)


def _parse_header(line: bytes) -> tuple[str, dict[str, Ed25519PublicKey], int]:
    header = json.loads(line)["export"]
    if header["format"] != EXPORT_FORMAT:
        raise ValueError(f"the export is of the form {header['format']!r}, not {EXPORT_FORMAT}")
    keys = _keys_by_id((key["key_id"], key["public_key"]) for key in header["keys"])
    return str(header["log_id"]), keys, _natural(header["tree_size"])


_ENTRY_LINE = b'{"entry":'
_LEAF_PART = b',"leaf_hash":"'
_ENTRY_TAIL = len(_LEAF_PART) + 2 * HASH_BYTES + len(b'"}')


def entry_line(entry: bytes, leaf: bytes) -> bytes:
    """One entry as a line of an export: its canonical bytes stand in it unchanged, from the tenth byte on."""
    return _ENTRY_LINE + entry + _LEAF_PART + leaf.hex().encode() + b'"}\n'


def header_line(log_id: str, tree_size: int, keys: Iterable[tuple[str, str]]) -> bytes:
    """The first line of an export; `keys` are (key id, PEM)."""
    header = {
        "format": EXPORT_FORMAT,
        "keys": [{"key_id": key_id, "public_key": pem} for key_id, pem in keys],
        "log_id": log_id,
        "tree_size": tree_size,
    }
    return json.dumps({"export": header}, separators=(",", ":")).encode() + b"\n"


def _export_items(lines: Iterable[bytes]) -> Iterator[_Row | Checkpoint]:
    position = 0
    for line in lines:
        text = line.removesuffix(b"\n")
        try:
            item = _parse_entry_line(text) if text.startswith(_ENTRY_LINE) else parse_checkpoint(text)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise VerificationFailed(1, position, f"the line for entry {position} cannot be read: {error}") from error
        yield item
        position += isinstance(item, _Row)


def _parse_entry_line(text: bytes) -> _Row:
    tail = text[-_ENTRY_TAIL:]
    if not (tail.startswith(_LEAF_PART) and tail.endswith(b'"}')):
        raise ValueError("no leaf hash")
    leaf = bytes.fromhex(tail[len(_LEAF_PART) : -2].decode("ascii"))
    return _Row(text[len(_ENTRY_LINE) : -_ENTRY_TAIL], leaf, None)


def open_store_read_only(path: Path) -> sqlite3.Connection:
    """A store of the audit service, of a running or a stopped platform; nothing is ever written to it.

    A stopped store on read-only media has no write-ahead log and needs `immutable`; a running one must not have it.
    """
    location = path.resolve().as_uri()
    try:
        connection = sqlite3.connect(f"{location}?mode=ro", uri=True, timeout=10)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            raise
        return sqlite3.connect(f"{location}?mode=ro&immutable=1", uri=True)
    return connection


def _open_store(path: Path) -> _Source:
    connection = open_store_read_only(path)
    try:
        connection.execute("BEGIN")  # one snapshot for everything that follows
        log_id = connection.execute("SELECT log_id FROM log").fetchone()[0]
        keys = _keys_by_id(connection.execute("SELECT key_id, public_key FROM signing_key ORDER BY since_size"))
        newest = connection.execute("SELECT max(sequence) FROM entry").fetchone()[0]
    except BaseException:
        connection.close()
        raise
    entries = 0 if newest is None else newest + 1
    return _Source("store", str(log_id), keys, entries, _store_items(connection), connection.close)


def _store_items(connection: sqlite3.Connection) -> Iterator[_Row | Checkpoint]:
    heads = connection.execute(f"SELECT {', '.join(_HEAD_COLUMNS)} FROM checkpoint ORDER BY tree_size")  # noqa: S608
    rows = connection.execute(f"SELECT canonical, hashes, {', '.join(_COLUMNS)} FROM entry ORDER BY sequence")  # noqa: S608
    position = 0
    head = _next_head(heads, 0)
    try:
        for row in rows:
            while head is not None and head.tree_size <= position:
                yield head
                head = _next_head(heads, position)
            # A value of another type is no entry and no hash; the checks then say where.
            entry, hashes = (value if isinstance(value, bytes) else b"" for value in row[:2])
            yield _Row(entry, hashes, row[2:])
            position += 1
    except sqlite3.Error as error:
        raise VerificationFailed(1, position, f"the row of entry {position} cannot be read: {error}") from error
    while head is not None:
        yield head
        head = _next_head(heads, head.tree_size)


def _next_head(heads: sqlite3.Cursor, position: int) -> Checkpoint | None:
    row = heads.fetchone()
    try:
        return None if row is None else make_checkpoint(dict(zip(_HEAD_COLUMNS, row, strict=True)))
    except ValueError as error:
        raise VerificationFailed(6, position, f"a checkpoint behind entry {position}: {error}") from error


def _open(path: Path) -> _Source:
    """Check 1: the source can be read, and names its log and its keys."""
    try:
        with path.open("rb") as stream:
            is_store = stream.read(16) == b"SQLite format 3\x00"
        return _open_store(path) if is_store else _open_export(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, sqlite3.Error) as error:
        raise VerificationFailed(1, None, f"{path} is not an audit export or store: {error}") from error


def entry_at(path: Path, sequence: int) -> bytes | None:
    """The canonical bytes of one entry of an export or store, unchecked: call `verify` first. None past the end."""
    source = _open(path)
    try:
        rows = (item for item in source.items if isinstance(item, _Row))
        return next((row.entry for position, row in enumerate(rows) if position == sequence), None)
    finally:
        source.close()


# --- The witness ------------------------------------------------------------------------------------------------------


def read_witness(folder: Path) -> tuple[dict[str, Ed25519PublicKey], list[Checkpoint]]:
    """The public keys and checkpoints that a witness folder holds; VerificationFailed when one cannot be read."""
    keys: dict[str, Ed25519PublicKey] = {}
    heads: list[Checkpoint] = []
    try:
        for path in sorted(folder.glob("keys/*.pem")):
            key = read_public_key(path.read_bytes())
            keys[key_id_of(key)] = key
        for path in sorted(folder.glob("checkpoints/*/*.json")):
            heads.append(parse_checkpoint(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VerificationFailed(8, None, f"the witness cannot be read: {path}: {error}") from error
    if not heads:
        raise VerificationFailed(8, None, f"{folder} holds no checkpoints")
    return keys, heads


# --- The verification -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """What was verified. Made only when every check has passed."""

    kind: str
    log_id: str
    entries: int = 0
    root_hash: bytes = EMPTY_ROOT
    checkpoints: int = 0
    witnessed: int = 0
    newest_checkpoint: Checkpoint | None = None
    newest_witnessed: Checkpoint | None = None
    keys_are_pinned: bool = False
    # Keys that were trusted because a trusted key before them endorsed them.
    endorsed_keys: int = 0
    # Entries behind the newest checkpoint: kept by their own hashes only.
    unsigned_entries: int = 0
    # Intents whose outcome is not in the log.
    open_intents: int = 0
    # How often an entry bears an earlier time than the one before it.
    clock_steps_back: int = 0


class _Verifier:
    """Walks a source once and holds what has been verified so far."""

    def __init__(
        self,
        source: _Source,
        trusted: Mapping[str, Ed25519PublicKey],
        witnessed: Sequence[Checkpoint],
    ) -> None:
        self._source = source
        self._trusted = dict(trusted)
        self._witnessed = sorted(witnessed, key=lambda head: head.tree_size)
        self._next_witnessed = 0
        self._tree = Frontier()
        self._ids: set[str] = set()
        self._open_intents: set[tuple[str, str]] = set()
        self._last_recorded_at = ""
        # Everything before this sequence number is proven by a signed checkpoint.
        self._proven = 0
        self.report = Report(source.kind, source.log_id)

    def run(self, progress: Callable[[int, int], None]) -> Report:
        for head in self._witnessed:
            if head.key_id in self._trusted:  # another may be endorsed further on
                self._check_signature(head, "witnessed checkpoint", 8)
        self._check_witnessed()
        for item in self._source.items:
            if isinstance(item, Checkpoint):
                self._take_checkpoint(item)
            else:
                self._take_entry(item)
                if self.report.entries % 10_000 == 0:
                    progress(self.report.entries, self._source.expected_entries)
        self._finish()
        progress(self.report.entries, self._source.expected_entries)
        return self.report

    def _take_entry(self, row: _Row) -> None:
        position = self.report.entries
        facts = parse_entry(row.entry, position)  # 2
        if facts.sequence != position:  # 3
            raise VerificationFailed(3, position, f"where entry {position} should be stands entry {facts.sequence}")
        if facts.entry_id in self._ids:  # 4
            raise VerificationFailed(4, position, f"entry {position} bears the id of an earlier entry")
        self._ids.add(facts.entry_id)
        self._check_stored(position, row, self._tree.append(leaf_hash(row.entry)), facts)  # 5
        self._observe(facts)
        if facts.activity == KEY_ACTIVITY:
            self._take_key(row.entry)
        self.report.entries = position + 1
        if self._next_witnessed < len(self._witnessed):
            self._check_witnessed()

    def _check_stored(self, position: int, row: _Row, hashes: bytes, facts: EntryFacts) -> None:
        kept = row.hashes
        if kept[:HASH_BYTES] != hashes[:HASH_BYTES]:
            raise VerificationFailed(5, position, f"entry {position} does not have the hash that is kept beside it")
        if row.columns is None:
            return
        if kept != hashes:
            level = next(n for n in range(1, 64) if kept[: (n + 1) * HASH_BYTES] != hashes[: (n + 1) * HASH_BYTES])
            first = max(position + 1 - (1 << level), 0)
            raise VerificationFailed(
                5, first, f"the subtree of entries {first} to {position} does not have the hash that is kept of it"
            )
        own = tuple(_plain(getattr(facts, name)) for name in _COLUMNS)
        if row.columns != own:
            names = [name for name, stored, said in zip(_COLUMNS, row.columns, own, strict=True) if stored != said]
            raise VerificationFailed(5, position, f"columns of entry {position} contradict it: {', '.join(names)}")

    def _take_key(self, entry: bytes) -> None:
        """A key that a trusted one endorsed is trusted from here on (6); any other has to be given."""
        value = json.loads(entry)
        details = value["details"]
        if value["phase"] != "DONE" or "endorsement" not in details:
            return
        try:
            key_id, key = endorsed_key(
                details["endorsement"], details["public_key"], self._source.log_id, self._trusted
            )
        except (ValueError, KeyError, TypeError):
            return
        if key_id not in self._trusted:
            self._trusted[key_id] = key
            self.report.endorsed_keys += 1

    def _observe(self, facts: EntryFacts) -> None:
        """What is worth knowing but proves nothing: open intents, a clock that went back."""
        activity = (facts.activity, facts.activity_id)
        if facts.phase == "INTENT":
            self._open_intents.add(activity)
        else:
            self._open_intents.discard(activity)
        if facts.recorded_at < self._last_recorded_at:
            self.report.clock_steps_back += 1
        self._last_recorded_at = facts.recorded_at

    def _take_checkpoint(self, head: Checkpoint) -> None:
        self._check_signature(head, "checkpoint", 6)
        if head.tree_size > self.report.entries:  # 7
            raise VerificationFailed(
                7,
                self.report.entries,
                f"entries {self.report.entries} to {head.tree_size - 1} are missing: "
                f"the checkpoint of {head.created_at} covers {head.tree_size}",
            )
        if head.tree_size < self.report.entries:
            raise VerificationFailed(
                7, head.tree_size, f"the checkpoint over {head.tree_size} entries stands behind {self.report.entries}"
            )
        self._check_root(head, "checkpoint", 7)
        self.report.checkpoints += 1
        self.report.newest_checkpoint = head

    def _check_signature(self, head: Checkpoint, name: str, check: int) -> None:
        try:
            check_signature(head, self._source.log_id, self._trusted)
        except ValueError as error:
            raise VerificationFailed(
                check, self._proven, f"the {name} over {head.tree_size} entries of {head.created_at} {error}"
            ) from error

    def _check_root(self, head: Checkpoint, name: str, check: int) -> None:
        root = self._tree.root()
        if root != head.root_hash:
            raise VerificationFailed(
                check,
                self._proven,
                f"entries {self._proven} to {head.tree_size - 1} are not those that the {name} of "
                f"{head.created_at} signs",
            )
        self._proven = head.tree_size

    def _check_witnessed(self) -> None:
        """Check 8 for every witnessed checkpoint of the size reached."""
        while self._next_witnessed < len(self._witnessed):
            head = self._witnessed[self._next_witnessed]
            if head.tree_size > self.report.entries:
                return
            self._check_signature(head, "witnessed checkpoint", 8)
            self._check_root(head, "witnessed checkpoint", 8)
            self.report.witnessed += 1
            self.report.newest_witnessed = head
            self._next_witnessed += 1

    def _finish(self) -> None:
        report = self.report
        if self._next_witnessed < len(self._witnessed):  # 8
            newest = self._witnessed[-1]
            raise VerificationFailed(
                8,
                report.entries,
                f"entries {report.entries} to {newest.tree_size - 1} are missing: "
                f"the witnessed checkpoint of {newest.created_at} covers {newest.tree_size}",
            )
        covered = report.newest_checkpoint.tree_size if report.newest_checkpoint else 0
        report.unsigned_entries = report.entries - covered
        if self._source.kind == "export" and report.entries != self._source.expected_entries:  # 9
            raise VerificationFailed(
                9,
                min(report.entries, self._source.expected_entries),
                f"the export announces {self._source.expected_entries} entries and holds {report.entries}",
            )
        if self._source.kind == "export" and (report.unsigned_entries or report.newest_checkpoint is None):  # 9
            raise VerificationFailed(
                9, covered, f"no checkpoint of the export covers entries from {covered} on: it is cut or was added to"
            )
        report.open_intents = len(self._open_intents)
        report.root_hash = self._tree.root()


def _plain(text: str) -> str:
    """A captured text without its escapes."""
    return str(json.loads(f'"{text}"')) if "\\" in text else text


def _ignore_progress(_done: int, _of: int) -> None:
    """Nobody watches."""


def verify(
    path: Path,
    *,
    witness: Path | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    public_keys: Sequence[Ed25519PublicKey] = (),
    progress: Callable[[int, int], None] = _ignore_progress,
) -> Report:
    """Make the checks of this module on an export or a store (SQLite file); VerificationFailed names the first failure.

    `witness` is a witness folder, `checkpoints` are further ones kept by whoever verifies, `public_keys` are the
    only keys trusted beside the witness's. `progress` is called with (entries done, entries expected).
    """
    witness_keys, witnessed = read_witness(witness) if witness is not None else ({}, [])
    pinned = {**witness_keys, **{key_id_of(key): key for key in public_keys}}
    source = _open(path)
    try:
        verifier = _Verifier(source, pinned or source.keys, [*witnessed, *checkpoints])
        verifier.report.keys_are_pinned = bool(pinned)
        return verifier.run(progress)
    except sqlite3.Error as error:
        raise VerificationFailed(1, None, f"{path} cannot be read: {error}") from error
    finally:
        source.close()


def outcomes(report: Report) -> dict[int, str]:
    """What came of each check: "passed", or what it could not cover."""
    found = dict.fromkeys(CHECKS, "passed")
    if not report.witnessed:
        found[8] = "no witness given"
    if report.unsigned_entries:
        found[9] = f"all but the newest {report.unsigned_entries}"
    return found


def describe(report: Report) -> list[str]:
    """The report in words, one statement a line."""
    lines = [
        f"log {report.log_id}: {report.entries} entries, Merkle root {report.root_hash.hex()}",
        f"{report.checkpoints} signed checkpoints agree with the entries; {report.witnessed} of the witness do",
    ]
    if report.unsigned_entries:
        lines.append(
            f"the newest {report.unsigned_entries} entries are under no checkpoint yet: no signature covers them"
        )
    if not report.keys_are_pinned:
        lines.append(
            "the public keys come from the log itself: give --public-key or --witness to know that they are right"
        )
    if not report.witnessed:
        lines.append("nothing was compared with a witness: a cut tail or a log made anew would not show")
    lines.append(f"{report.open_intents} intents have no outcome in the log")
    if report.clock_steps_back:
        lines.append(f"the log's clock went back {report.clock_steps_back} times; the order is the sequence")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The stand-alone verifier: 0 when every check passed, 1 when one failed."""
    parser = argparse.ArgumentParser(description="Verify a Likeness audit export or store.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--witness", type=Path, help="folder of witnessed checkpoints")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="a checkpoint that you kept")
    parser.add_argument("--public-key", type=Path, action="append", default=[], help="PEM of a trusted signing key")
    given = parser.parse_args(arguments)
    say = sys.stdout.write
    try:
        report = verify(
            given.path,
            witness=given.witness,
            checkpoints=[parse_checkpoint(path.read_bytes()) for path in given.checkpoint],
            public_keys=[read_public_key(path.read_bytes()) for path in given.public_key],
        )
    except VerificationFailed as failure:
        say(f"FAILED check {failure.check} ({CHECKS[failure.check]}): {failure.detail}\n")
        say(f"first bad sequence number: {'unknown' if failure.sequence is None else failure.sequence}\n")
        return 1
    except (OSError, ValueError) as error:
        say(f"a given checkpoint or key cannot be read: {error}\n")
        return 1
    for number, outcome in outcomes(report).items():
        say(f"{number}. {CHECKS[number]}: {outcome}\n")
    for line in describe(report):
        say(f"{line}\n")
    for line in NOT_PROVEN:
        say(f"not proven: {line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
