"""A log of simulated casework: requests, searches, judgements, releases and outcomes, in the words that services use.

    python -m tests.support.simulated_months OUT [--months 1] [--requests 60]

writes OUT/audit-export.jsonl. Numbers are drawn from a seed, about those of a real unit: 56 % potential names overall,
64 % for good and 30 % for poor probes, one request in eight unsuitable.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.audit.adapters.folder_witness import FolderWitness
from services.audit.appending import next_entry
from services.audit.entries import Statement
from services.audit.opening import open_log
from services.audit.reading import export_lines
from services.audit.verification import Checkpoint
from services.shared.clock import SystemClock, rfc3339
from services.shared.ids import new_id
from tests.unit.audit.builders import sqlite_store

OFFENCES = (
    ("burglary", 30),
    ("robbery", 16),
    ("theft", 22),
    ("assault", 14),
    ("fraud", 12),
    ("murder", 4),
    ("arson", 2),
)
FORCES = (("northshire", 70), ("eastmoor", 20), ("westhaven", 10))
PURPOSES = (("prevention_and_detection", 82), ("missing_person", 12), ("identify_deceased", 6))
SOURCES = (("cctv", 50), ("social_media", 20), ("body_worn_video", 15), ("phone", 15))
LISTS = (("custody", 80), ("custody,op_liberal", 15), ("sex_offenders", 5))
OUTCOMES = (("charged", 40), ("no_action", 30), ("eliminated", 15), ("wrong_person", 8), ("missing_person_found", 7))
CASE_TYPES = (("suspect", 85), ("missing_person", 12), ("deceased", 3))


@dataclass
class Casework:
    """Makes the statements of requests, one after the other."""

    draw: random.Random
    start: datetime
    months: int

    def requests(self, count: int) -> Iterator[tuple[datetime, Statement]]:
        days = 30 * self.months
        moments = sorted(self.start + timedelta(days=self.draw.random() * (days - 1)) for _ in range(count))
        for moment in moments:
            yield from self._request(moment)

    def _request(self, moment: datetime) -> Iterator[tuple[datetime, Statement]]:
        request_id, activity_id = new_id(), new_id()
        force, offence = self._pick(FORCES), self._pick(OFFENCES)
        purpose, watchlists = self._pick(PURPOSES), self._pick(LISTS)
        case = f"{force[:2].upper()}/2026/{self.draw.randrange(10**6):06d}"
        objects = (f"request:{request_id}",)
        about = {"offence": offence, "source": self._pick(SOURCES), "case_type": self._pick(CASE_TYPES)}
        told = {"urgency": "routine", "watchlists": watchlists, **about}

        def say(
            hours: float, service: str, activity: str, phase: str = "DONE", **more: object
        ) -> tuple[datetime, Statement]:
            at = moment + timedelta(hours=hours)
            given = {"activity_id": new_id(), "objects": objects, "details": {}, "operation": "ALTERATION", **more}
            return at, Statement(
                entry_id=new_id(),
                phase=phase,
                activity=activity,
                person_id="officer-1",
                force=force,
                service=service,
                purpose=purpose,
                case_reference=case,
                occurred_at=rfc3339(at),
                **given,  # type: ignore[arg-type]
            )

        yield say(0, "review", "submit_request", "INTENT", activity_id=activity_id, details=told, objects=("probe:a",))
        yield say(0, "review", "submit_request", activity_id=activity_id, objects=("probe:a", *objects))
        quality = self.draw.choice((self.draw.uniform(12, 45), self.draw.uniform(40, 92), self.draw.uniform(50, 92)))
        if self.draw.random() < (0.45 if quality < 30 else 0.06):
            yield say(2, "review", "call_unsuitable", details={"grade": "unsuitable", "state": "unsuitable"})
            return
        search_id = new_id()
        lists = tuple(f"watchlist:{name}" for name in watchlists.split(","))
        asked = {**about, "mode": "investigation", "max_candidates": "20"}
        consult: dict[str, Any] = {
            "activity_id": search_id,
            "operation": "CONSULTATION",
            "objects": ("probe:a", *lists),
        }
        if self.draw.random() < 0.05:
            yield say(2.5, "search", "search", "REFUSED", **{**consult, "details": {"reason": "forbidden"}})
            yield say(3, "review", "return")
            return
        yield say(3, "search", "search", "INTENT", **{**consult, "details": asked})
        done = {"quality": f"{quality:.1f}", "candidates": "20", "model_id": "yunet+sface+p3", "searchable": "107500"}
        if self.draw.random() < 0.3:
            done["threshold:custody"] = "0.41 (custody-2026-09)" if moment.day < 15 else "0.43 (custody-2026-10)"
        yield say(3, "search", "search", **{**consult, "details": done})
        yield say(3, "review", "search", objects=(*objects, f"search:{search_id}"), details={"searches": search_id})
        for hours, person in ((5, "first"), (9, "second")):
            yield say(hours, "review", "judge_candidate", details={"finding": "no_support", "by": person})
        if self.draw.random() < 0.05:
            return
        has_name = self.draw.random() < (0.36 if quality < 50 else 0.70)
        yield say(12, "review", "release", operation="DISCLOSURE", details={"potential_names": str(int(has_name))})
        if has_name and self.draw.random() < 0.8:
            kind = self._pick(OUTCOMES)
            outcome_id = new_id()
            yield say(14, "review", "record_outcome", "INTENT", activity_id=outcome_id, details={"kind": kind})
            yield say(14, "review", "record_outcome", activity_id=outcome_id, details={"state": "closed"})

    def _pick(self, weighted: tuple[tuple[str, int], ...]) -> str:
        names, weights = zip(*weighted, strict=True)
        return str(self.draw.choices(names, weights)[0])


def write_export(folder: Path, *, months: int = 1, requests: int = 60, seed: int = 11) -> Path:
    """The log of that many requests from October 2026 on, verified forms and all; its export."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "audit.sqlite"
    head = write_log(database, folder / "witness", folder / "key.pem", months=months, requests=requests, seed=seed)
    path = folder / "audit-export.jsonl"
    store = sqlite_store(database)
    _write(path, store, head)
    store.close()
    return path


def write_log(
    database: Path, witness: Path, key: Path, *, months: int = 1, requests: int = 60, seed: int = 11
) -> Checkpoint:
    """A new log in a store, signed and witnessed as the service does it, so that a service can go on with it."""
    casework = Casework(random.Random(seed), datetime(2026, 10, 1, 8, tzinfo=UTC), months)
    said = sorted(casework.requests(requests), key=lambda pair: pair[0])
    store = sqlite_store(database)
    log = open_log(store, FolderWitness(witness), key, SystemClock())
    tree = log.frontier
    with store.writing() as transaction:
        transaction.add_entries([next_entry(statement, tree, rfc3339(at)) for at, statement in said])
        head = log.signer.sign(log.log_id, tree.size, tree.root(), said[-1][0])
        transaction.add_checkpoint(head)
    store.close()
    return head


def _write(path: Path, store: object, head: Checkpoint) -> None:
    with path.open("wb") as stream:
        stream.writelines(export_lines(store, head))  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--months", type=int, default=1)
    parser.add_argument("--requests", type=int, default=60)
    options = parser.parse_args()
    print(write_export(options.out, months=options.months, requests=options.requests))


if __name__ == "__main__":
    main()
