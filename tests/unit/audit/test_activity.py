"""A search has a disclosure however often it was looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from services.audit import activity
from services.audit.activity import LOOKS_IN_FULL, ProveActivity, ProvenActivity
from services.audit.entries import Statement
from services.audit.proofs import check_inclusion
from services.audit.verification import leaf_hash
from tests.unit.audit.builders import LocalLog, local_log, statement

SEARCH_ID, CASE = "s-1", "NS/2026/000001"
SEARCH, REQUEST = f"search:{SEARCH_ID}", "request:q-1"
VIEWS = 2500


def _entry(operation: str, name: str, phase: str, *objects: str, person: str = "anna") -> Statement:
    return replace(
        statement(phase=phase),
        operation=operation,
        activity=name,
        activity_id=f"{name}-1",
        person_id=person,
        case_reference=CASE,
        objects=objects,
    )


def _searched_and_judged(made: LocalLog) -> None:
    """A search, found by a request's step that names both, and what was done about it."""
    own = replace(_entry("CONSULTATION", "search", "INTENT"), activity_id=SEARCH_ID)
    for one in (
        own,
        replace(own, entry_id=statement().entry_id, phase="DONE"),
        _entry("CONSULTATION", "case_search", "DONE", REQUEST, SEARCH),
        _entry("ALTERATION", "sign_first", "DONE", REQUEST),
    ):
        made.log.append(one)


def _viewed(made: LocalLog, count: int) -> None:
    views = [_entry("CONSULTATION", "see_case", "DONE", REQUEST, person=f"p-{n % 3}") for n in range(count)]
    with ThreadPoolExecutor(32) as callers:
        list(callers.map(made.log.append, views))


def _proven(made: LocalLog) -> ProvenActivity:
    return ProveActivity(made.log, made.store)(SEARCH_ID, CASE, [SEARCH])


def _names(proven: ProvenActivity) -> Sequence[str]:
    return [entry.facts()["activity"] for entry, _ in proven.entries]


def test_two_and_a_half_thousand_views_are_no_obstacle(tmp_path: Path) -> None:
    with local_log(tmp_path) as made:
        _searched_and_judged(made)
        _viewed(made, VIEWS)
        made.log.append(_entry("DISCLOSURE", "release", "DONE", REQUEST))
        proven = _proven(made)
        everything = [(entry.sequence, entry.leaf_hash) for entry in made.store.scan(0, proven.checkpoint.tree_size)]
    names = _names(proven)
    assert names[:4] == ["search", "search", "case_search", "sign_first"]
    assert names[4:-1] == ["see_case"] * LOOKS_IN_FULL
    assert names[-1] == "release"
    for entry, proof in proven.entries:
        head = proven.checkpoint
        check_inclusion(leaf_hash(entry.canonical), entry.sequence, head.tree_size, proof.path, head.root_hash)
    # Who looked, and how often: nobody is lost between what is given and what is counted.
    assert sum(one.count for one in proven.counted) == VIEWS - LOOKS_IN_FULL
    assert {(one.activity, one.phase, one.person_id) for one in proven.counted} == {
        ("see_case", "DONE", f"p-{n}") for n in range(3)
    }
    given = {entry.sequence for entry, _ in proven.entries}
    left = [leaf for sequence, leaf in everything if sequence not in given]
    assert (min(one.first_sequence for one in proven.counted), max(one.last_sequence for one in proven.counted)) == (
        4,
        4 + VIEWS - LOOKS_IN_FULL - 1,
    )
    assert proven.counted_sha256 == hashlib.sha256(b"".join(reversed(left))).digest()


def test_nothing_is_counted_where_all_of_it_is_given(tmp_path: Path) -> None:
    with local_log(tmp_path) as made:
        _searched_and_judged(made)
        _viewed(made, 3)
        made.log.append(_entry("ALTERATION", "elsewhere", "DONE", "request:q-2"))
        proven = _proven(made)
    assert _names(proven) == ["search", "search", "case_search", "sign_first", *["see_case"] * 3]
    assert (proven.counted, proven.counted_sha256) == ([], b"")


def test_no_number_of_acts_stops_a_disclosure_and_those_of_one_kind_push_out_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "MAX_ACTS", 6)
    monkeypatch.setattr(activity, "LOOKS_IN_FULL", 2)
    with local_log(tmp_path) as made:
        _searched_and_judged(made)
        assert (len(_proven(made).entries), _proven(made).counted) == (4, [])
        made.log.append(_entry("DISCLOSURE", "release", "DONE", REQUEST))
        for _ in range(9):
            made.log.append(_entry("ALTERATION", "note", "DONE", REQUEST))
        proven = _proven(made)
    assert _names(proven) == ["search", "search", "case_search", "sign_first", "release", *["note"] * 6]
    assert [(one.activity, one.count) for one in proven.counted] == [("note", 3)]
