"""The references of somebody with more pictures than anybody compares: every one of them can be a candidate."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.ingest.adapters import sql_subjects
from services.ingest.adapters.schema import enrolments
from services.ingest.adapters.sql_subjects import SqlSubjectReferences

SUBJECT = ("custody", "northshire", "NS-1")


def _row(number: int) -> dict[str, Any]:
    kinds: dict[type, Any] = {str: "", int: 0, float: 0.0, bytes: b"", bool: False}
    filled = {column.name: kinds[column.type.python_type] for column in enrolments.columns if not column.nullable}
    watchlist_id, owner, subject_id = SUBJECT
    return filled | {
        "enrolment_id": f"e-{number}",
        "reference_id": f"r-{number}",
        "version": number + 1,
        "watchlist_id": watchlist_id,
        "owner": owner,
        "subject_id": subject_id,
        "state": "enrolled",
        "captured_on": f"{1990 + number % 30}-01-01",
        "image_sha256": f"{number:064x}",
        "unified_quality": 50.0,
    }


def test_the_oldest_of_many_is_found_by_its_id() -> None:
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
    enrolments.create(engine)
    count = sql_subjects._MOST + 1
    with engine.begin() as connection:
        connection.execute(sa.insert(enrolments), [_row(number) for number in range(count)])
    subjects = SqlSubjectReferences(engine)
    listed = {one.reference_id for one in subjects.references_of(*SUBJECT)}
    [left_out] = {f"r-{number}" for number in range(count)} - listed
    assert [one.reference_id for one in subjects.references_of(*SUBJECT, left_out)] == [left_out]
    assert subjects.references_of("custody", "eastmoor", "NS-1", left_out) == []
    engine.dispose()
