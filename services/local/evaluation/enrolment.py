"""Enrols the gallery of an evaluation through the platform's own bulk loader."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from services.ingest.bulk.client import EnrolmentClient
from services.ingest.bulk.journal import Journal
from services.ingest.bulk.loader import BulkLoader, Report
from services.ingest.bulk.manifest import BulkRow
from services.local.evaluation.labelled_set import LabelledStill
from services.local.evaluation.target import Target
from services.shared.errors import DependencyUnavailable

_ENROLLED = "enrolled"
_PATIENCE_S = 120.0
_CONCURRENCY = 2


@dataclass(frozen=True, slots=True)
class EnrolledGallery:
    """What stands in the gallery, and what was refused and why.

    `identity_of` has the identity of each subject id, `stills_of` the enrolled stills of an identity.
    """

    watchlist: str
    owner: str
    identity_of: Mapping[str, str]
    stills_of: Mapping[str, tuple[LabelledStill, ...]]
    refused: Mapping[str, str]

    @property
    def enrolled(self) -> tuple[LabelledStill, ...]:
        return tuple(still for stills in self.stills_of.values() for still in stills)


def subject_id_of(identity: str) -> str:
    """A subject id that says nothing of the person: labels of a set may be names, the platform needs none."""
    return "EVAL-" + hashlib.sha256(identity.encode()).hexdigest()[:20]


class _Progress:
    """The bulk loader's progress as one count of settled images."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def submitted(self, count: int) -> None: ...

    def not_submitted(self, count: int) -> None: ...

    def settled(self, count: int) -> None:
        self._advance(count)


def enrol_gallery(
    target: Target, stills: Sequence[LabelledStill], watchlist: str, lawful_basis: str, advance: Callable[[int], None]
) -> EnrolledGallery:
    """Enrol every still and wait until each is settled. Raises what the bulk loader raises.

    Enrolling the same set again on the same platform changes nothing.
    """
    owner = target.owner()
    fields = {"watchlist": watchlist, "owner": owner, "lawful_basis": lawful_basis, "captured_on": "2026-01-01"}
    rows = [
        BulkRow(line, still.name, still.path, {**fields, "subject_id": subject_id_of(still.identity)})
        for line, still in enumerate(stills, start=2)
    ]
    report = _load(target, rows, advance)
    stills_of: dict[str, tuple[LabelledStill, ...]] = {}
    refused: dict[str, str] = {}
    for still, row in zip(stills, rows, strict=True):
        state, reason, _detail = report.state_of(row)
        if state == _ENROLLED:
            stills_of[still.identity] = (*stills_of.get(still.identity, ()), still)
        else:
            refused[still.name] = reason or state
    if not stills_of:
        raise DependencyUnavailable(
            f"Not one of {len(stills)} pictures was enrolled: {', '.join(sorted(set(refused.values())))}.",
            advice="Look at the log of ingest.",
        )
    identity_of = {subject_id_of(still.identity): still.identity for still in stills}
    return EnrolledGallery(watchlist, owner, identity_of, stills_of, refused)


def _load(target: Target, rows: Sequence[BulkRow], advance: Callable[[int], None]) -> Report:
    stop, report = Event(), Report()
    client = EnrolmentClient(target.ingest_url, target.custodian_token, _PATIENCE_S, stop)
    with tempfile.TemporaryDirectory(prefix="likeness-evaluate-") as folder:
        journal = Journal(Path(folder) / "journal.jsonl")
        try:
            BulkLoader(client, journal, _CONCURRENCY, stop, _Progress(advance)).load(rows, report, is_waiting=True)
        finally:
            stop.set()
            journal.close()
            client.close()
    return report
