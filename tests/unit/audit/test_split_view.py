"""A log that shows one thing to one party and another to the next: both views are sound in themselves, and whoever
holds the other party's checkpoint, or what a witness was given of both, finds it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from services.audit import entries
from services.audit.adapters.folder_witness import FolderWitness
from services.audit.reading import export_lines
from services.audit.verification import Checkpoint, VerificationFailed, main, parse_checkpoint
from services.audit.verifying import verify
from tests.unit.audit.builders import local_log, statement

BEFORE, AFTER = 5, 4


def _view(folder: Path) -> Checkpoint:
    """Further entries, which no two views have in common, under a signed checkpoint; an export beside it."""
    with local_log(folder, entries=1000) as opened:
        opened.fill(AFTER)
        head = opened.log.checkpoint(fresh=True)
        (folder / "export.jsonl").write_bytes(b"".join(export_lines(opened.store, head)))
    (folder / "kept.json").write_bytes(head.document())
    FolderWitness(folder / "witness").keep(head)
    return head


@pytest.fixture
def views(tmp_path: Path) -> tuple[Path, Path]:
    """One log with one key, forked; each copy has a witness of its own."""
    first, second = tmp_path / "first", tmp_path / "second"
    with local_log(first, entries=1000) as opened:
        opened.fill(BEFORE)
        opened.log.checkpoint(fresh=True)
    shutil.copytree(first, second)
    one, other = _view(first), _view(second)
    assert (one.log_id, one.key_id, one.tree_size) == (other.log_id, other.key_id, other.tree_size)
    assert one.root_hash != other.root_hash
    return first, second


def test_each_view_alone_is_sound(views: tuple[Path, Path]) -> None:
    for folder in views:
        assert verify(folder / "export.jsonl", witness=folder / "witness").entries == BEFORE + AFTER


def test_the_other_partys_checkpoint_shows_it(views: tuple[Path, Path]) -> None:
    first, second = views
    assert main([str(first / "export.jsonl"), "--checkpoint", str(first / "kept.json")]) == 0
    assert main([str(first / "export.jsonl"), "--checkpoint", str(second / "kept.json")]) == 1
    with pytest.raises(VerificationFailed) as failure:
        verify(first / "export.jsonl", witness=second / "witness")
    # What came after the last entry that both views share is not proven.
    assert (failure.value.check, failure.value.sequence) == (8, BEFORE)


def test_a_witness_that_was_given_both_keeps_both_and_neither_view_passes(views: tuple[Path, Path]) -> None:
    first, second = views
    FolderWitness(first / "witness").keep(parse_checkpoint((second / "kept.json").read_bytes()))
    for folder in (first, second):
        with pytest.raises(VerificationFailed) as failure:
            verify(folder / "export.jsonl", witness=first / "witness")
        assert failure.value.check == 8


def test_a_time_that_there_is_not_ends_no_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of earlier versions took one from any service, and nobody could verify them again."""
    monkeypatch.setattr(entries, "_is_time", lambda _text: True)
    with local_log(tmp_path / "log", entries=1000) as opened:
        opened.log.append(replace(statement(), occurred_at="2026-13-45T99:99:99.000Z"))
        head = opened.log.checkpoint(fresh=True)
        (tmp_path / "export.jsonl").write_bytes(b"".join(export_lines(opened.store, head)))
    report = verify(tmp_path / "export.jsonl")
    assert (report.entries, report.ahead) == (head.tree_size, 1)
