"""`verify` for the platform: exports and stores, with progress and a report in words. The checks are verification.py's.

A store (SQLite file) is read as the lines of an export. What it keeps beside an entry and an export does not have (the
hashes of the subtrees that the entry closes, and the columns that the log is searched by) is a part of check 5.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.audit.export_form import DISCLOSED, EXPORT_ACTIVITY, disclosure_of, entry_line, header_line
from services.audit.skew import SKEW_S, skew_of
from services.audit.verification import (
    HASH_BYTES,
    UNREADABLE,
    Checkpoint,
    EntryFacts,
    Keys,
    Report,
    VerificationFailed,
    Verifier,
    key_id_of,
    parse_checkpoint,
    read_witness,
)

Progress = Callable[[int, int], None]
_PROGRESS_EVERY = 10_000
_COLUMNS = ("entry_id", "activity", "activity_id", "person_id", "case_reference", "recorded_at")
_HEAD_COLUMNS = ("log_id", "tree_size", "root_hash", "created_at", "key_id", "signature")


@dataclass(slots=True)
class LogReport(Report):
    """What was verified, and what is worth knowing of the log though it proves nothing.

    `open_intents`: intents without an outcome. `clock_steps_back`: how often an entry is earlier than the one before.
    `ahead` and `behind`: entries whose writer's clock stood more than SKEW_S before, or behind, the log's own.
    `watermark`: to whom this copy was given, as its first line says and the log confirms.
    """

    open_intents: int = 0
    clock_steps_back: int = 0
    ahead: int = 0
    behind: int = 0
    watermark: str = ""


def verify(
    path: Path,
    *,
    witness: Path | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    public_keys: Sequence[Ed25519PublicKey] = (),
    progress: Progress = lambda _done, _of: None,
) -> LogReport:
    """Make the checks of verification.py on an export or a store; VerificationFailed names the first failure.

    `witness` is a witness folder, `checkpoints` are further ones kept by whoever verifies, `public_keys` are the
    only keys trusted beside the witness's. `progress` is called with (entries done, entries expected).
    """
    trusted, witnessed = read_witness(witness) if witness is not None else ({}, [])
    trusted.update({key_id_of(key): key for key in public_keys})
    heads = [*witnessed, *checkpoints]
    try:
        if not _is_store(path):
            with path.open("rb") as lines:
                return _Observing(lines, trusted, heads, progress).run()
        with closing(open_store_read_only(path)) as connection:
            return _StoreVerifier(_Store(connection), trusted, heads, progress).run()
    except (OSError, sqlite3.Error) as error:
        raise VerificationFailed(1, None, f"{path} cannot be read: {error}") from error


def entry_at(path: Path, sequence: int) -> bytes | None:
    """The canonical bytes of one entry of an export or store, unchecked: call `verify` first. None past the end."""
    if _is_store(path):
        with closing(open_store_read_only(path)) as connection:
            row = connection.execute("SELECT canonical FROM entry WHERE sequence = ?", (sequence,)).fetchone()
            return None if row is None else bytes(row[0])
    return next((entry for position, entry in enumerate(entries_of(path)) if position == sequence), None)


def entries_of(path: Path) -> Iterator[bytes]:
    """The canonical bytes of every entry of an export or store in their order, unchecked: call `verify` first."""
    if _is_store(path):
        with closing(open_store_read_only(path)) as connection:
            for row in connection.execute("SELECT canonical FROM entry ORDER BY sequence"):
                yield bytes(row[0])
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.startswith(b'{"entry":'):
                yield line[len(b'{"entry":') : line.rindex(b',"leaf_hash":')]


def describe(report: LogReport) -> list[str]:
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
    lines.append(
        report.watermark or "no recipient is named: a copy from the store itself, or one without its first line"
    )
    lines.append(f"{report.open_intents} intents have no outcome in the log")
    if report.clock_steps_back:
        lines.append(f"the log's clock went back {report.clock_steps_back} times; the order is the sequence")
    if report.ahead:
        lines.append(f"{report.ahead} entries say a time over {SKEW_S:g} s after the log's: the writer's clock was off")
    if report.behind:
        lines.append(
            f"{report.behind} entries say a time over {SKEW_S:g} s before the log's: they waited, or the clock was off"
        )
    return lines


class _Observing(Verifier):
    """The verifier, and what is seen on the way."""

    report: LogReport

    def __init__(
        self, lines: Iterable[bytes], trusted: Keys, witnessed: Iterable[Checkpoint], progress: Progress
    ) -> None:
        super().__init__(lines, trusted, witnessed)
        self.report = LogReport(keys_are_pinned=bool(trusted))
        self._progress = progress
        self._open: set[tuple[str, str]] = set()
        self._last_recorded_at = ""
        self._disclosed: Mapping[str, Any] = {}
        self._exports: list[dict[str, str]] = []

    def run(self) -> LogReport:
        super().run()
        self._check_disclosed()
        self.report.open_intents = len(self._open)
        self._progress(self.report.entries, self._announced)
        return self.report

    def _take_header(self, header: Mapping[str, Any]) -> None:
        super()._take_header(header)
        disclosed = header.get("disclosed", {})
        if not isinstance(disclosed, Mapping) or not all(isinstance(value, str) for value in disclosed.values()):  # 1
            raise ValueError("to whom it was disclosed is not told in words")
        self._disclosed = disclosed

    def _check_disclosed(self) -> None:
        """Whom the first line names, the log names too: the entry of an export is written before its first line."""
        if not self._disclosed:
            return
        said = disclosure_of(*(str(self._disclosed.get(name, "")) for name in DISCLOSED))
        if said != dict(self._disclosed) or not any(said.items() >= one.items() for one in self._exports):
            raise VerificationFailed(1, None, "the first line names a recipient that the log does not name")
        self.report.watermark = f"{said['watermark']} Approved by {said['approved_by']}."

    def _take_further(self, facts: EntryFacts, hashes: bytes) -> None:
        activity, activity_id, phase, recorded_at = facts.group("activity", "activity_id", "phase", "recorded_at")
        if phase == "INTENT":
            self._open.add((activity, activity_id))
            if activity == EXPORT_ACTIVITY:
                details = json.loads(facts["details"])
                self._exports.append({name: str(details.get(name, "")) for name in DISCLOSED})
        else:
            self._open.discard((activity, activity_id))
        self.report.clock_steps_back += recorded_at < self._last_recorded_at
        skew_s = skew_of(facts.group("occurred_at"), recorded_at)
        self.report.ahead += skew_s > SKEW_S
        self.report.behind += skew_s < -SKEW_S
        self._last_recorded_at = recorded_at
        if self.report.entries % _PROGRESS_EVERY == 0:
            self._progress(self.report.entries, self._announced)


def _is_store(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(16) == b"SQLite format 3\x00"
    except OSError as error:
        raise VerificationFailed(1, None, f"{path} is not an audit export or store: {error}") from error


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


class _Store:
    """A store as the lines of an export. `hashes` and `columns` are those kept beside the entry that came last."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.hashes = b""
        self.columns: tuple[object, ...] = ()

    def lines(self) -> Iterator[bytes]:
        """Every checkpoint behind the last entry that it covers, as in an export."""
        read = self._connection.execute
        read("BEGIN")  # one snapshot for everything
        log_id, newest = (read(query).fetchone()[0] for query in _ABOUT)
        keys = [(str(key), str(pem)) for key, pem in read("SELECT key_id, public_key FROM signing_key")]
        yield header_line(str(log_id), 0 if newest is None else newest + 1, keys)
        heads = read(f"SELECT {', '.join(_HEAD_COLUMNS)} FROM checkpoint ORDER BY tree_size")  # noqa: S608
        rows = read(f"SELECT canonical, hashes, {', '.join(_COLUMNS)} FROM entry ORDER BY sequence")  # noqa: S608
        position = 0
        head = _head(heads, 0)
        try:
            for row in rows:
                while head is not None and head.tree_size <= position:
                    yield head.document()
                    head = _head(heads, position)
                # A value of another type is no entry and no hash; the checks then say where.
                entry, self.hashes = (value if isinstance(value, bytes) else b"" for value in row[:2])
                self.columns = row[2:]
                yield entry_line(entry, self.hashes[:HASH_BYTES].ljust(HASH_BYTES, b"\x00"))
                position += 1
        except sqlite3.Error as error:
            raise VerificationFailed(1, position, f"the row of entry {position} cannot be read: {error}") from error
        while head is not None:
            yield head.document()
            head = _head(heads, position)


_ABOUT = ("SELECT log_id FROM log", "SELECT max(sequence) FROM entry")


def _head(heads: sqlite3.Cursor, position: int) -> Checkpoint | None:
    row = heads.fetchone()
    if row is None:
        return None
    values: Mapping[str, Any] = dict(zip(_HEAD_COLUMNS, row, strict=True))
    try:
        # Values that nobody has looked at yet: as a document they are.
        return parse_checkpoint(Checkpoint(**values).document())
    except (AttributeError, *UNREADABLE) as error:
        raise VerificationFailed(6, position, f"a checkpoint behind entry {position}: {error}") from error


class _StoreVerifier(_Observing):
    """The verifier of a store that may still be written: entries behind its newest checkpoint are only counted."""

    def __init__(self, store: _Store, trusted: Keys, witnessed: Iterable[Checkpoint], progress: Progress) -> None:
        super().__init__(store.lines(), trusted, witnessed, progress)
        self._store = store

    def _take_further(self, facts: EntryFacts, hashes: bytes) -> None:
        position, kept = self.report.entries, self._store.hashes
        if kept != hashes:  # 5
            level = next(n for n in range(1, 64) if kept[: (n + 1) * HASH_BYTES] != hashes[: (n + 1) * HASH_BYTES])
            first = max(position + 1 - (1 << level), 0)
            raise VerificationFailed(
                5, first, f"the subtree of entries {first} to {position} does not have the hash that is kept of it"
            )
        own = tuple(map(_plain, facts.group(*_COLUMNS)))
        if self._store.columns != own:  # 5
            pairs = zip(_COLUMNS, self._store.columns, own, strict=True)
            names = [name for name, stored, said in pairs if stored != said]
            raise VerificationFailed(5, position, f"columns of entry {position} contradict it: {', '.join(names)}")
        super()._take_further(facts, hashes)

    def _finish(self) -> None:
        newest = self.report.newest_checkpoint
        self.report.unsigned_entries = self.report.entries - (newest.tree_size if newest else 0)


def _plain(text: str) -> str:
    """A captured text without its escapes."""
    return str(json.loads(f'"{text}"')) if "\\" in text else text
