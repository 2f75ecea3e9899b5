"""The stand-alone verifier of a Likeness audit export: this one file, Python 3.11 and the package `cryptography`.

    python verification.py EXPORT [--witness FOLDER] [--checkpoint FILE]... [--public-key PEM]...

Exit code 0 when every check passed; 1 when one failed, and then the first bad sequence number is named. The platform's
own `likeness audit verify` runs the same code (verifying.py adds stores, progress and a longer report).

The checks stand in CHECKS, and the code repeats their numbers. What they do not prove stands in NOT_PROVEN and is
printed with every report. Every failed check raises VerificationFailed, which names the check and the first sequence
number that is bad or no longer proven. Nothing returns a truth value that could be forgotten.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

ENTRY_FORMAT: Final = "likeness.audit-entry.v1"
CHECKPOINT_FORMAT: Final = "likeness.audit-checkpoint.v1"
EXPORT_FORMAT: Final = "likeness.audit-export.v1"
ENDORSEMENT_FORMAT: Final = "likeness.audit-key-endorsement.v1"
KEY_ACTIVITY: Final = "audit_key"

CHECKS: Final[Mapping[int, str]] = {
    # Of a known version; the id of every key is the SHA-256 of its DER form.
    1: "The source is readable and names its log and keys",
    # likeness.audit-entry.v1: one value, one encoding.
    2: "Every entry is in canonical form",
    3: "Sequence numbers run from 0 without a gap",
    4: "No entry id occurs twice",
    # In an export its leaf hash; in a store further hashes, and the columns that it is searched by.
    5: "Stored hashes and columns agree with the entries",
    # The keys given or the witness's, and those that the log brought into use with the endorsement of a trusted key
    # before it; otherwise the source's own, and then the report says that nothing outside it vouches for them. A key is
    # trusted up to the entry by which the log replaced it, and for no checkpoint that covers that entry.
    6: "Every checkpoint is signed by a trusted key",
    # RFC 6962; and no checkpoint covers more entries than there are.
    7: "Every checkpoint's root is the root of the entries",
    # So a cut tail, and a log written anew from the start, are found even if whoever did it holds the signing key.
    8: "Every witnessed checkpoint's root is the root of the entries",
    # An export must satisfy this; in a store that is being written the entries behind it are counted and reported.
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
# What a file that is something else than it should be makes its readers raise.
UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, RecursionError)


class VerificationFailed(Exception):
    """A check failed. `sequence` is the first bad entry, or the first that is no longer proven."""

    def __init__(self, check: int, sequence: int | None, detail: str) -> None:
        super().__init__(detail)
        self.check, self.sequence, self.detail = check, sequence, detail


# --- The Merkle tree of RFC 6962 --------------------------------------------------------------------------------------

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
HASH_BYTES: Final = 32


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
        self.size, self.peaks = size, list(peaks)

    def append(self, leaf: bytes) -> bytes:
        """Add a leaf. Returns its hash and those of the complete subtrees that it closes, smallest first."""
        closed = current = leaf
        self.size = remaining = self.size + 1
        while not remaining & 1:
            current = node_hash(self.peaks.pop(), current)
            closed += current
            remaining >>= 1
        self.peaks.append(current)
        return closed

    def root(self) -> bytes:
        return root_of_peaks(self.peaks)


# --- Entries in canonical form ----------------------------------------------------------------------------------------

# RFC 8785 strings: shortest escapes only. Possessive quantifiers keep hostile input from backtracking.
_CHARACTERS = r'(?:[^"\\\x00-\x1f]++|\\["\\bfnrt]|\\u00(?:0[0-7bef]|1[0-9a-f]))*+'
_TEXT = f'"{_CHARACTERS}"'
_LIST = rf"\[(?:{_TEXT}(?:,{_TEXT})*+)?+\]"
_MAP = rf"\{{(?:{_TEXT}:{_TEXT}(?:,{_TEXT}:{_TEXT})*+)?+\}}"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ENTRY = re.compile(
    rf'\{{"activity":"(?P<activity>{_CHARACTERS})","activity_id":"(?P<activity_id>{_CHARACTERS})",'
    rf'"actor":\{{"force":{_TEXT},"person_id":"(?P<person_id>{_CHARACTERS})","roles":{_LIST}\}},'
    rf'"case_reference":"(?P<case_reference>{_CHARACTERS})","details":(?P<details>{_MAP}),"entry_id":"(?P<entry_id>{_ID})",'
    rf'"format":"{re.escape(ENTRY_FORMAT)}","objects":{_LIST},"occurred_at":"(?P<occurred_at>{_TIME})",'
    r'"operation":"(?:COLLECTION|ALTERATION|CONSULTATION|DISCLOSURE|COMBINATION|ERASURE)",'
    r'"phase":"(?P<phase>INTENT|DONE|REFUSED|FAILED|UNKNOWN)",'
    rf'"purpose":{_TEXT},"recipients":{_LIST},"recorded_at":"(?P<recorded_at>{_TIME})",'
    rf'"sequence":(?P<sequence>0|[1-9][0-9]{{0,15}}),"service":{_TEXT}\}}',
    re.ASCII,
)
_keys_of = json.JSONDecoder(object_pairs_hook=lambda pairs: [key for key, _ in pairs]).raw_decode


EntryFacts = re.Match[str]  # what an entry says, by the names in the pattern; texts as they stand between the quotes


def parse_entry(entry: bytes, position: int) -> EntryFacts:
    """Check 2: the bytes are an entry in canonical form."""
    try:
        match = _ENTRY.fullmatch(entry.decode("utf-8"))
    except UnicodeDecodeError:
        match = None
    if match is None:
        raise VerificationFailed(2, position, f"entry {position} is not in canonical form")
    if match["details"] != "{}":
        keys = _keys_of(match["details"])[0]
        if keys != sorted(set(keys), key=lambda key: key.encode("utf-16-be")):  # the order of RFC 8785, none twice
            raise VerificationFailed(2, position, f"the details of entry {position} are not in canonical order")
    return match


# --- Keys and checkpoints ---------------------------------------------------------------------------------------------

Keys = Mapping[str, Ed25519PublicKey]
_HASH = "[0-9a-f]{64}"
_CHECKPOINT = re.compile(
    rf'\{{"checkpoint":\{{"created_at":"({_TIME})","format":"{re.escape(CHECKPOINT_FORMAT)}","key_id":"({_HASH})",'
    rf'"log_id":"({_ID})","root_hash":"({_HASH})","tree_size":(0|[1-9][0-9]{{0,15}})\}},'
    r'"signature":"((?:[0-9a-f]{2})*+)"\}',
    re.ASCII,
)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


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
        own = {"created_at": self.created_at, "format": CHECKPOINT_FORMAT, "key_id": self.key_id, "log_id": self.log_id}
        return {**own, "root_hash": self.root_hash.hex(), "tree_size": self.tree_size}

    def signed_bytes(self) -> bytes:
        """The canonical bytes that the signature covers."""
        return _canonical(self.body())

    def document(self) -> bytes:
        """The checkpoint as one line of JSON, as it stands in exports, at the witness and in REST answers."""
        return b'{"checkpoint":' + self.signed_bytes() + b',"signature":"' + self.signature.hex().encode() + b'"}'


def parse_checkpoint(document: bytes | str) -> Checkpoint:
    """Read what `Checkpoint.document` writes, spaces or not; ValueError when it is something else."""
    match = _CHECKPOINT.fullmatch(_canonical(json.loads(document)).decode())
    if match is None:
        raise ValueError(f"not a checkpoint of the form {CHECKPOINT_FORMAT}")
    created_at, key_id, log_id, root_hash, tree_size, signature = match.groups()
    root = bytes.fromhex(root_hash)
    return Checkpoint(log_id, int(tree_size), root, created_at, key_id, bytes.fromhex(signature))


def _check_signed(trusted: Keys, key_id: str, signature: bytes, content: bytes) -> None:
    if key_id not in trusted:
        raise ValueError(f"is signed by a key that is not trusted ({key_id})")
    try:
        trusted[key_id].verify(signature, content)
    except InvalidSignature as error:
        raise ValueError("has a signature that is not valid") from error


def check_signature(head: Checkpoint, log_id: str, trusted: Keys) -> None:
    """ValueError that says what is wrong, unless a trusted key signed the checkpoint for this log."""
    if head.log_id != log_id:
        raise ValueError(f"is of the log {head.log_id}, this is the log {log_id}")
    _check_signed(trusted, head.key_id, head.signature, head.signed_bytes())


def endorsement_bytes(log_id: str, old_key: str, new_key: str, endorsed_at: str) -> bytes:
    """The canonical bytes by which the key with the id `old_key` says that `new_key` follows it in this log."""
    keys = {"log_id": log_id, "new_key": new_key, "old_key": old_key}
    return _canonical({"endorsed_at": endorsed_at, "format": ENDORSEMENT_FORMAT, **keys})


def endorsed_key(document: str, pem: str, log_id: str, trusted: Keys) -> tuple[str, Ed25519PublicKey]:
    """A new key and its id, vouched for by a trusted one; ValueError that says what is wrong."""
    value, key = json.loads(document), read_public_key(pem.encode())
    body = value.get("endorsement") if isinstance(value, dict) else None
    if not isinstance(body, dict) or (body.get("log_id"), body.get("new_key")) != (log_id, key_id_of(key)):
        raise ValueError("the endorsement is of another log or another key")
    old, moment, signature = str(body.get("old_key")), str(body.get("endorsed_at")), str(value.get("signature"))
    _check_signed(trusted, old, bytes.fromhex(signature), endorsement_bytes(log_id, old, key_id_of(key), moment))
    return key_id_of(key), key


def read_witness(folder: Path) -> tuple[dict[str, Ed25519PublicKey], list[Checkpoint]]:
    """The public keys and checkpoints that a witness folder holds; VerificationFailed when one cannot be read."""
    try:
        found = [read_public_key(path.read_bytes()) for path in sorted(folder.glob("keys/*.pem"))]
        heads = [parse_checkpoint(path.read_bytes()) for path in sorted(folder.glob("checkpoints/*/*.json"))]
    except UNREADABLE as error:
        raise VerificationFailed(8, None, f"the witness {folder} cannot be read: {error}") from error
    if not heads:
        raise VerificationFailed(8, None, f"{folder} holds no checkpoints")
    return {key_id_of(key): key for key in found}, heads


# --- The verification -------------------------------------------------------------------------------------------------

# One entry as a line of an export: its canonical bytes stand in it unchanged, from the tenth byte on.
_ENTRY_LINE = re.compile(rb'\{"entry":(.*),"leaf_hash":"([0-9a-fA-F]{64})"\}\n?', re.DOTALL)


@dataclass(slots=True)
class Report:
    """What was verified. `unsigned_entries`: how many stand behind the newest checkpoint, in a store only."""

    log_id: str = ""
    keys_are_pinned: bool = False
    entries: int = 0
    root_hash: bytes = EMPTY_ROOT
    checkpoints: int = 0
    witnessed: int = 0
    newest_checkpoint: Checkpoint | None = None
    endorsed_keys: int = 0
    unsigned_entries: int = 0


class Verifier:
    """Walks the lines of an export once and holds what has been verified so far.

    Only the keys of `trusted` (by id) are trusted, or where there are none those that the source names itself.
    """

    def __init__(self, lines: Iterable[bytes], trusted: Keys, witnessed: Iterable[Checkpoint]) -> None:
        self._lines = iter(lines)
        self._trusted = dict(trusted)
        self._replaced_at: dict[str, int] = {}  # key id -> the entry by which another key took its place
        self._witnessed = sorted(witnessed, key=lambda head: head.tree_size, reverse=True)  # the next one last
        self._announced = 0
        self._tree = Frontier()
        self._ids: set[str] = set()
        self._proven = 0  # everything before this sequence number is proven by a signed checkpoint
        self.report = Report(keys_are_pinned=bool(trusted))

    def run(self) -> Report:
        """Raises VerificationFailed at the first failure."""
        try:
            self._take_header(json.loads(next(self._lines, b""))["export"])
        except UNREADABLE as error:
            raise VerificationFailed(1, None, f"this is no audit export: {error}") from error
        self._check_witnessed()
        for line in self._lines:
            if match := _ENTRY_LINE.fullmatch(line):
                self._take_entry(match[1], bytes.fromhex(match[2].decode()))
            else:
                self._take_checkpoint(line)
        if self._witnessed:  # of more entries than there are
            self._check_head(self._witnessed[0], 8)
        self._finish()
        self.report.root_hash = self._tree.root()
        return self.report

    def _take_header(self, header: Mapping[str, Any]) -> None:
        if header["format"] != EXPORT_FORMAT or type(header["tree_size"]) is not int:  # 1
            raise ValueError(f"it is of the form {header['format']!r}, not {EXPORT_FORMAT}")
        keys = {str(key["key_id"]): read_public_key(str(key["public_key"]).encode()) for key in header["keys"]}
        for key_id, key in keys.items():
            if key_id_of(key) != key_id:
                raise ValueError(f"the key {key_id!r} is another key than its id says")
        self.report.log_id, self._announced = str(header["log_id"]), header["tree_size"]
        self._trusted = self._trusted or keys

    def _take_entry(self, entry: bytes, kept_hash: bytes) -> None:
        position = self.report.entries
        facts = parse_entry(entry, position)  # 2
        if facts["sequence"] != str(position):  # 3
            raise VerificationFailed(3, position, f"where entry {position} should be stands entry {facts['sequence']}")
        if facts["entry_id"] in self._ids:  # 4
            raise VerificationFailed(4, position, f"entry {position} bears the id of an earlier entry")
        self._ids.add(facts["entry_id"])
        leaf = leaf_hash(entry)
        if kept_hash != leaf:  # 5
            raise VerificationFailed(5, position, f"entry {position} does not have the hash that is kept beside it")
        self._take_further(facts, self._tree.append(leaf))
        if facts["activity"] == KEY_ACTIVITY and facts.group("phase", "person_id") == ("DONE", "service:audit"):
            self._take_key(json.loads(facts["details"]))
        self.report.entries = position + 1
        self._check_witnessed()

    def _take_further(self, facts: EntryFacts, hashes: bytes) -> None:
        """Nothing more in an export; whatever else a store keeps of an entry is checked here (verifying.py)."""

    def _take_key(self, details: Mapping[str, str]) -> None:
        """A key that a trusted one endorsed is trusted from here on (6); any other has to be given. The key that a
        trusted one replaces signs nothing any more."""
        try:
            key_id = key_id_of(read_public_key(details["public_key"].encode()))
            if "endorsement" in details:
                key = endorsed_key(details["endorsement"], details["public_key"], self.report.log_id, self._trusted)[1]
                self.report.endorsed_keys += key_id not in self._trusted
                self._trusted[key_id] = key
            replaced = details["replaces"]
        except UNREADABLE:
            return
        if key_id in self._trusted and key_id != replaced:
            self._replaced_at.setdefault(replaced, self.report.entries)

    def _take_checkpoint(self, line: bytes) -> None:
        position = self.report.entries
        try:
            head = parse_checkpoint(line)
        except UNREADABLE as error:
            raise VerificationFailed(1, position, f"the line for entry {position} cannot be read: {error}") from error
        self._check_head(head, 7)
        self.report.checkpoints += 1
        self.report.newest_checkpoint = head

    def _check_witnessed(self) -> None:
        while self._witnessed and self._witnessed[-1].tree_size <= self.report.entries:
            self._check_head(self._witnessed.pop(), 8)
            self.report.witnessed += 1

    def _check_not_replaced(self, head: Checkpoint) -> None:
        entry = self._replaced_at.get(head.key_id)
        if entry is not None and head.tree_size > entry:
            raise ValueError(f"is signed by a key that entry {entry} replaced")

    def _check_head(self, head: Checkpoint, check: int) -> None:
        """Checks 6 and 7 of a checkpoint, or 8 of a witnessed one."""
        have, size = self.report.entries, head.tree_size
        told = f"the {'witnessed ' if check == 8 else ''}checkpoint over {size} entries of {head.created_at}"
        try:
            check_signature(head, self.report.log_id, self._trusted)
            self._check_not_replaced(head)
        except ValueError as error:
            raise VerificationFailed(6 if check == 7 else check, self._proven, f"{told} {error}") from error
        if size > have:
            raise VerificationFailed(check, have, f"entries {have} to {size - 1} are missing, and {told} covers them")
        if size < have:
            raise VerificationFailed(check, size, f"{told} stands behind {have}")
        if self._tree.root() != head.root_hash:
            first = f"entries {self._proven} to {size - 1}"
            raise VerificationFailed(check, self._proven, f"{first} are not those that {told} signs")
        self._proven = size

    def _finish(self) -> None:
        have, said, newest = self.report.entries, self._announced, self.report.newest_checkpoint
        if have != said:  # 9
            raise VerificationFailed(9, min(have, said), f"the export announces {said} entries and holds {have}")
        covered = newest.tree_size if newest else 0
        if newest is None or covered != have:  # 9
            detail = f"no checkpoint of the export covers entries from {covered} on: it is cut or was added to"
            raise VerificationFailed(9, covered, detail)


def outcomes(report: Report) -> dict[int, str]:
    """What came of each check: "passed", or what it could not cover."""
    found = dict.fromkeys(CHECKS, "passed")
    if not report.witnessed:
        found[8] = "no witness given"
    if report.unsigned_entries:
        found[9] = f"all but the newest {report.unsigned_entries}"
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when every check passed, 1 when one failed."""
    parser = argparse.ArgumentParser(description="Verify an export of a Likeness audit log.")
    parser.add_argument("export", type=Path)
    parser.add_argument("--witness", type=Path, help="folder of witnessed checkpoints")
    parser.add_argument("--checkpoint", type=Path, action="append", default=[], help="a checkpoint that you kept")
    parser.add_argument("--public-key", type=Path, action="append", default=[], help="PEM of a trusted signing key")
    given = parser.parse_args(arguments)
    try:
        keys, heads = read_witness(given.witness) if given.witness else ({}, [])
        heads += [parse_checkpoint(path.read_bytes()) for path in given.checkpoint]
        keys |= {key_id_of(key): key for key in (read_public_key(path.read_bytes()) for path in given.public_key)}
        with given.export.open("rb") as lines:
            report = Verifier(lines, keys, heads).run()
    except VerificationFailed as failure:
        first = "unknown" if failure.sequence is None else failure.sequence
        sys.stdout.write(f"FAILED check {failure.check} ({CHECKS[failure.check]}): {failure.detail}\n")
        sys.stdout.write(f"first bad sequence number: {first}\n")
        return 1
    except UNREADABLE as error:
        sys.stdout.write(f"a given file cannot be read: {error}\n")
        return 1
    told = [f"{number}. {CHECKS[number]}: {outcome}" for number, outcome in outcomes(report).items()]
    told.append(f"log {report.log_id}: {report.entries} entries, Merkle root {report.root_hash.hex()}")
    told.append(f"{report.checkpoints} signed checkpoints agree with them; {report.witnessed} of the witness do")
    if not keys:
        told.append("the public keys come from the export itself: give --public-key or --witness to know them right")
    sys.stdout.write("".join(f"{line}\n" for line in (*told, *(f"not proven: {line}" for line in NOT_PROVEN))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
