"""F20: 1,000 random tampers on an exported log, and more on a store. Every one is found, and the place is named.

Three kinds of tamperer:
- one who edits the file, perhaps mending the hash beside what was changed: found by the checks of the file itself;
- one who writes the log anew from some entry on, with all hashes, and signs with a key of their own: found because the
  key is not trusted;
- one who does so with the stolen signing key: nothing in the file can show it, the witness does.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from services.audit.export_form import entry_line, header_line
from services.audit.reading import export_lines
from services.audit.signing import Signer, create_signing_key, load_signer
from services.audit.verification import (
    Checkpoint,
    Frontier,
    VerificationFailed,
    leaf_hash,
    parse_checkpoint,
    read_public_key,
)
from services.audit.verifying import verify
from services.shared.canonical import canonical_bytes
from services.shared.clock import SystemClock
from services.shared.ids import new_id
from tests.unit.audit.builders import local_log

TAMPERS = 1000
ENTRIES = 200
CHECKPOINT_EVERY = 25
Lines = list[bytes]


@dataclass(frozen=True)
class _Tamper:
    """What was done: the lines, the first entry that is not what it was, and which checks may find it."""

    lines: Lines
    first_bad: int
    checks: frozenset[int]
    # False where the tamperer mended everything up to the next signed checkpoint: then the entries since the last good
    # one are named.
    is_exact: bool = True


class _Exported:
    """A real export, its witness, its key, and tampering with it."""

    def __init__(self, folder: Path) -> None:
        with local_log(folder, entries=CHECKPOINT_EVERY) as local:
            while local.log.size < ENTRIES:
                local.fill(CHECKPOINT_EVERY)
                local.log.checkpoint(fresh=True)
            self.lines: Lines = list(export_lines(local.store, local.log.checkpoint()))
        self.folder = folder
        self.store_path = folder / "audit.sqlite"
        self.witness = folder / "witness"
        self.key = load_signer(folder / "key.pem")
        create_signing_key(folder / "forged.pem")
        self.forged_key = load_signer(folder / "forged.pem")

    @cached_property
    def entry_places(self) -> list[int]:
        """Where in the lines each entry stands."""
        return [place for place, line in enumerate(self.lines) if line.startswith(b'{"entry":')]

    @cached_property
    def entries(self) -> list[bytes]:
        """The canonical bytes of each entry."""
        lines = (self.lines[place] for place in self.entry_places)
        return [line[len(b'{"entry":') : line.rindex(b',"leaf_hash":')] for line in lines]

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        return [parse_checkpoint(line) for line in self.lines if line.startswith(b'{"checkpoint":')]

    @cached_property
    def _values(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in self.entries]

    def values(self) -> list[dict[str, Any]]:
        """What each entry says, in a list of the caller's own."""
        return [*self._values]

    def log_id(self) -> str:
        return self.checkpoints[0].log_id


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> _Exported:
    return _Exported(tmp_path_factory.mktemp("exported"))


def _changed(value: dict[str, Any], chooser: random.Random) -> dict[str, Any]:
    """The entry with one fact falsified."""
    lie = f"lie-{chooser.randrange(10**9)}"
    field = chooser.choice(
        ["actor", "purpose", "case_reference", "phase", "objects", "details", "occurred_at", "activity_id"]
    )
    other: dict[str, Any] = {
        "actor": {**value["actor"], "person_id": lie},
        "phase": "REFUSED" if value["phase"] != "REFUSED" else "DONE",
        "objects": [f"watchlist:{lie}"],
        "details": {**value["details"], "number": lie},
        "occurred_at": f"2001-01-01T00:00:00.{chooser.randrange(1000):03d}Z",
    }
    return {**value, field: other.get(field, lie)}


def _line(value: dict[str, Any]) -> bytes:
    entry = canonical_bytes(value)
    return entry_line(entry, leaf_hash(entry))


def change_bytes(exported: _Exported, chooser: random.Random) -> _Tamper:
    """One byte of one entry's line becomes another."""
    sequence = chooser.randrange(ENTRIES)
    place = exported.entry_places[sequence]
    line = bytearray(exported.lines[place])
    at = chooser.randrange(len(line) - 1)
    line[at] = chooser.choice([byte for byte in range(256) if byte not in (line[at], 0x0A)])
    if bytes(line).lower() == exported.lines[place].lower():
        return change_bytes(exported, chooser)  # a hexadecimal digit of the leaf hash in capitals says the same
    lines = [*exported.lines]
    lines[place] = bytes(line)
    return _Tamper(lines, sequence, frozenset({1, 2, 3, 4, 5}))


def change_fact(exported: _Exported, chooser: random.Random) -> _Tamper:
    """One fact is another, in canonical form, beside the old hash."""
    sequence = chooser.randrange(ENTRIES)
    place = exported.entry_places[sequence]
    entry = canonical_bytes(_changed(exported.values()[sequence], chooser))
    lines = [*exported.lines]
    lines[place] = entry_line(entry, leaf_hash(exported.entries[sequence]))
    return _Tamper(lines, sequence, frozenset({5}))


def change_fact_and_hash(exported: _Exported, chooser: random.Random) -> _Tamper:
    """The same, with the hash beside it mended."""
    sequence = chooser.randrange(ENTRIES)
    lines = [*exported.lines]
    lines[exported.entry_places[sequence]] = _line(_changed(exported.values()[sequence], chooser))
    return _Tamper(lines, sequence, frozenset({7, 8}), is_exact=False)


def delete(exported: _Exported, chooser: random.Random) -> _Tamper:
    """Up to five entries are missing."""
    count = chooser.randint(1, 5)
    sequence = chooser.randrange(ENTRIES - count)
    places = exported.entry_places[sequence : sequence + count]
    return _Tamper(
        [line for place, line in enumerate(exported.lines) if place not in places], sequence, frozenset({3, 7})
    )


def delete_and_renumber(exported: _Exported, chooser: random.Random) -> _Tamper:
    """One entry is missing, the later ones have moved up and have mended hashes."""
    sequence = chooser.randrange(ENTRIES - 1)
    values = exported.values()
    del values[sequence]
    return _Tamper(_relined(exported, values, sequence), sequence, frozenset({7, 8, 9}), is_exact=False)


def insert(exported: _Exported, chooser: random.Random) -> _Tamper:
    """An invented entry, or a copy of another, stands between two."""
    sequence = chooser.randrange(1, ENTRIES)
    value = {**exported.values()[chooser.randrange(ENTRIES)], "sequence": sequence}
    if chooser.random() < 0.5:
        value["entry_id"] = new_id()
    lines = [*exported.lines]
    lines.insert(exported.entry_places[sequence], _line(value))
    # An invented entry with a right number passes for itself until its root is compared or the next number comes.
    return _Tamper(lines, sequence, frozenset({3, 4, 7, 8}), is_exact=False)


def insert_and_renumber(exported: _Exported, chooser: random.Random) -> _Tamper:
    """An invented entry, and the later ones have moved down and have mended hashes."""
    sequence = chooser.randrange(1, ENTRIES)
    values = exported.values()
    values.insert(sequence, {**_changed(values[sequence], chooser), "entry_id": new_id()})
    return _Tamper(_relined(exported, values, sequence), sequence, frozenset({7, 8, 9}), is_exact=False)


def swap(exported: _Exported, chooser: random.Random) -> _Tamper:
    """Two entries have changed places."""
    first, second = sorted(chooser.sample(range(ENTRIES), 2))
    places = exported.entry_places
    lines = [*exported.lines]
    lines[places[first]], lines[places[second]] = lines[places[second]], lines[places[first]]
    return _Tamper(lines, first, frozenset({3}))


def swap_and_renumber(exported: _Exported, chooser: random.Random) -> _Tamper:
    """Two entries have changed places, and their numbers and hashes are mended."""
    first, second = sorted(chooser.sample(range(ENTRIES), 2))
    values = exported.values()
    values[first], values[second] = values[second], values[first]
    return _Tamper(_relined(exported, values, first), first, frozenset({7, 8}), is_exact=False)


def cut_tail(exported: _Exported, chooser: random.Random) -> _Tamper:
    """The newest entries are gone, the checkpoints are still there."""
    cut = chooser.randint(1, ENTRIES - 1)
    gone = set(exported.entry_places[ENTRIES - cut :])
    lines = [line for place, line in enumerate(exported.lines) if place not in gone]
    return _Tamper(lines, ENTRIES - cut, frozenset({7, 8}))


def cut_tail_and_checkpoints(exported: _Exported, chooser: random.Random) -> _Tamper:
    """The log ends at an older checkpoint and announces no more: only the witness knows better."""
    size = chooser.randrange(0, ENTRIES, CHECKPOINT_EVERY)
    end = exported.lines.index(exported.checkpoints[size // CHECKPOINT_EVERY].document() + b"\n")
    return _Tamper([_header(exported, size, exported.key), *exported.lines[1 : end + 1]], size, frozenset({8}))


def rechain(exported: _Exported, chooser: random.Random) -> _Tamper:
    """The log is written anew from one entry on and signed with a key that the tamperer added."""
    return _rechained(exported, chooser, exported.forged_key, frozenset({6, 8}))


def rechain_with_the_stolen_key(exported: _Exported, chooser: random.Random) -> _Tamper:
    """The same, signed as the log signs."""
    return _rechained(exported, chooser, exported.key, frozenset({8}))


def _rechained(exported: _Exported, chooser: random.Random, key: Signer, checks: frozenset[int]) -> _Tamper:
    sequence = chooser.randrange(ENTRIES)
    values = exported.values()
    values[sequence] = _changed(values[sequence], chooser)
    genuine = {head.tree_size: head for head in exported.checkpoints if head.tree_size <= sequence}
    lines = [_header(exported, ENTRIES, exported.key, key)]
    tree = Frontier()
    for value in values:
        entry = canonical_bytes(value)
        tree.append(leaf_hash(entry))
        lines.append(entry_line(entry, leaf_hash(entry)))
        if tree.size % CHECKPOINT_EVERY == 0:
            forged = key.sign(exported.log_id(), tree.size, tree.root(), SystemClock().now())
            lines.append(genuine.get(tree.size, forged).document() + b"\n")
    return _Tamper(lines, sequence, checks, is_exact=False)


def _relined(exported: _Exported, values: list[dict[str, Any]], start: int) -> Lines:
    """The export with other entries, numbers and hashes mended, and the old checkpoints behind the old counts."""
    heads = {head.tree_size: head.document() + b"\n" for head in exported.checkpoints}
    lines = [exported.lines[0], heads[0]]
    for number, value in enumerate(values):
        own = number < start
        lines.append(exported.lines[exported.entry_places[number]] if own else _line({**value, "sequence": number}))
        lines += [heads[number + 1]] if number + 1 in heads else []
    lines += [head for size, head in heads.items() if size > len(values)]
    return lines


def _header(exported: _Exported, size: int, *keys: Signer) -> bytes:
    return header_line(exported.log_id(), size, {key.key_id: key.public_key_pem for key in keys}.items())


TAMPERINGS: tuple[Callable[[_Exported, random.Random], _Tamper], ...] = (
    change_bytes,
    change_fact,
    change_fact_and_hash,
    delete,
    delete_and_renumber,
    insert,
    insert_and_renumber,
    swap,
    swap_and_renumber,
    cut_tail,
    cut_tail_and_checkpoints,
    rechain,
    rechain_with_the_stolen_key,
)


def test_f20_every_one_of_1000_random_tampers_is_found_and_its_place_is_named(
    exported: _Exported, tmp_path: Path
) -> None:
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(exported.lines))
    assert verify(path, witness=exported.witness).entries == ENTRIES
    chooser = random.Random(20)
    found: Counter[str] = Counter()
    for number in range(TAMPERS):
        tampering = TAMPERINGS[number % len(TAMPERINGS)]
        tamper = tampering(exported, chooser)
        path.write_bytes(b"".join(tamper.lines))
        with pytest.raises(VerificationFailed) as failure:
            verify(path, witness=exported.witness)
        told = failure.value
        where = f"{tampering.__name__} at {tamper.first_bad}: check {told.check}, {told.sequence}: {told.detail}"
        assert told.check in tamper.checks, where
        assert told.sequence is not None, where
        if tamper.is_exact:
            assert told.sequence == tamper.first_bad, where
        else:
            # What is named lies behind the last good checkpoint and not behind the next.
            last_good = tamper.first_bad - tamper.first_bad % CHECKPOINT_EVERY
            assert last_good <= told.sequence <= last_good + CHECKPOINT_EVERY, where
        found[tampering.__name__] += 1
    assert sum(found.values()) == TAMPERS
    assert set(found) == {tampering.__name__ for tampering in TAMPERINGS}


def test_f20_without_a_witness_only_what_the_stolen_key_and_an_old_end_can_hide_is_missed(
    exported: _Exported, tmp_path: Path
) -> None:
    """What `NOT_PROVEN` admits is really all that is missed."""
    path = tmp_path / "export.jsonl"
    chooser = random.Random(21)
    for tampering in TAMPERINGS:
        path.write_bytes(b"".join(tampering(exported, chooser).lines))
        if tampering in (rechain_with_the_stolen_key, cut_tail_and_checkpoints):
            assert verify(path).witnessed == 0
        elif tampering is rechain:
            assert not verify(path).keys_are_pinned
            with pytest.raises(VerificationFailed, match="not trusted"):
                verify(path, public_keys=[read_public_key(exported.key.public_key_pem.encode())])
        else:
            with pytest.raises(VerificationFailed):
                verify(path)


def test_f20_a_kept_checkpoint_serves_as_a_witness(exported: _Exported, tmp_path: Path) -> None:
    kept = parse_checkpoint(exported.lines[-1])
    path = tmp_path / "export.jsonl"
    for tampering in (rechain_with_the_stolen_key, cut_tail_and_checkpoints):
        path.write_bytes(b"".join(tampering(exported, random.Random(22)).lines))
        with pytest.raises(VerificationFailed) as failure:
            verify(path, checkpoints=[kept])
        assert failure.value.check == 8


def test_f20_the_tail_of_a_store_is_cut_by_one_and_by_1000(tmp_path: Path) -> None:
    with local_log(tmp_path, entries=500) as local:
        local.fill(1200)
    for cut in (1, 1000):
        path = tmp_path / f"cut-{cut}.sqlite"
        _copy(tmp_path / "audit.sqlite", path)
        _edit(path, f"DELETE FROM entry WHERE sequence >= {1200 - cut}")  # noqa: S608
        with pytest.raises(VerificationFailed) as failure:
            verify(path)
        assert (failure.value.check, failure.value.sequence) == (7, 1200 - cut)
        # With the checkpoints cut as well only the witness knows.
        _edit(path, f"DELETE FROM checkpoint WHERE tree_size > {1200 - cut}")  # noqa: S608
        assert verify(path).entries == 1200 - cut
        with pytest.raises(VerificationFailed) as failure:
            verify(path, witness=tmp_path / "witness")
        assert (failure.value.check, failure.value.sequence) == (8, 1200 - cut)


@pytest.mark.parametrize("seed", range(40))
def test_f20_a_changed_store_is_found_and_the_row_is_named(exported: _Exported, tmp_path: Path, seed: int) -> None:
    chooser = random.Random(seed)
    path = tmp_path / "audit.sqlite"
    _copy(exported.store_path, path)
    sequence = chooser.randrange(ENTRIES - 1)
    checks, setting = chooser.choice(
        [
            ({5}, "canonical = CAST(replace(canonical, 'northshire', 'southshire') AS BLOB)"),
            ({5}, "person_id = 'nobody'"),
            ({5}, "case_reference = 'none'"),
            ({5}, "hashes = zeroblob(32)"),
            ({5}, "hashes = CAST(substr(hashes, 1, 32) || zeroblob(32) AS BLOB)"),
            ({1}, "activity_id = CAST(x'ff' AS TEXT)"),
            ({2}, "canonical = 'text'"),
            ({2}, "canonical = x'ff'"),
            ({3}, f"sequence = {ENTRIES + 5}"),
            ({3}, ""),
        ]
    )
    verb = f"UPDATE entry SET {setting}" if setting else "DELETE FROM entry"  # noqa: S608
    change = f"{verb} WHERE sequence = {sequence}"
    _edit(path, change)
    with pytest.raises(VerificationFailed) as failure:
        verify(path)
    assert failure.value.check in checks, failure.value.detail
    assert failure.value.sequence is not None
    if "substr(hashes" in change:  # a subtree is named by its first entry
        assert failure.value.sequence <= sequence
    else:
        assert failure.value.sequence == sequence


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("UPDATE checkpoint SET signature = zeroblob(64) WHERE tree_size = 100", 6),
        ("UPDATE checkpoint SET root_hash = zeroblob(32) WHERE tree_size = 100", 6),
        ("UPDATE checkpoint SET tree_size = 99 WHERE tree_size = 100", 6),
        ("UPDATE checkpoint SET root_hash = 'text' WHERE tree_size = 100", 6),
        ("UPDATE checkpoint SET key_id = 'ab' WHERE tree_size = 100", 6),
        ("UPDATE log SET log_id = '00000000-0000-7000-8000-000000000000'", 6),
        ("UPDATE signing_key SET public_key = 'none'", 1),
        ("DELETE FROM signing_key", 6),
        ("DELETE FROM log", 1),
        ("UPDATE log SET log_id = x'ff'", 6),
        ("UPDATE signing_key SET public_key = x'ff'", 1),
        ("DROP TABLE entry", 1),
    ],
)
def test_f20_changed_checkpoints_and_keys_of_a_store_are_found(
    exported: _Exported, tmp_path: Path, change: str, check: int
) -> None:
    path = tmp_path / "audit.sqlite"
    _copy(exported.store_path, path)
    _edit(path, change)
    with pytest.raises(VerificationFailed) as failure:
        verify(path)
    assert failure.value.check == check


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}", b"[]", b'{"export":{}}', b"\xff\xfe", b"SQLite format 3\x00rest", b"[" * 100_000]
)
def test_f20_what_is_no_log_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "export.jsonl"
    path.write_bytes(content)
    with pytest.raises(VerificationFailed) as failure:
        verify(path)
    assert failure.value.check == 1


@pytest.mark.parametrize("kind", ["export", "store"])
def test_f20_whatever_the_bytes_the_verifier_answers(exported: _Exported, tmp_path: Path, kind: str) -> None:
    """Random damage to a file is found or does not matter; it never ends the verifier in another way."""
    whole = b"".join(exported.lines) if kind == "export" else exported.store_path.read_bytes()
    path = tmp_path / "damaged"
    chooser = random.Random(kind)
    found = 0
    for _ in range(150):
        damaged = bytearray(whole)
        at = chooser.randrange(len(damaged))
        length = chooser.choice([1, 4, 100, 5000])
        damaged[at : at + length] = chooser.choice([b"", bytes(length), chooser.randbytes(length)])
        path.write_bytes(damaged)
        try:
            verify(path, witness=exported.witness)
        except VerificationFailed:
            found += 1
    assert found > 75


def _copy(source: Path, target: Path) -> None:
    """The stopped store: everything is in the one file."""
    assert not source.with_name(source.name + "-wal").exists()
    shutil.copyfile(source, target)


def _edit(path: Path, change: str) -> None:
    """What somebody with the file does: take the triggers away and change rows."""
    connection = sqlite3.connect(path)
    with connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute(change)
    connection.close()
