"""What waits is in the queue, however much was finished before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.review.casework.looking import MOST_FINISHED
from services.review.model import CaseState
from services.shared.ids import new_id
from tests.unit.review.people import ANNA, NOW, OFFICER, Unit


def test_a_new_request_is_seen_behind_a_year_of_finished_ones(unit: Unit) -> None:
    withdrawn = unit.requested()
    template = unit.desk.intake.withdraw(OFFICER, withdrawn.request_id, withdrawn.version)
    for number in range(MOST_FINISHED + 5):
        due_at = NOW - timedelta(days=400) + timedelta(hours=number)
        state = CaseState.RELEASED if number % 2 else CaseState.CLOSED
        unit.store.add(
            replace(template, request_id=new_id(), number=f"2025-{number:05d}", state=state, due_at=due_at, probes=())
        )
    fresh = unit.requested()
    for who in (ANNA, OFFICER):
        waiting = unit.desk.looking.queue(who)
        assert waiting[-1].request_id == fresh.request_id
        everything = [row.number for row in unit.desk.looking.queue(who, with_finished=True)]
        assert fresh.number in everything
        assert "2025-00000" not in everything, "of what is finished the newest are listed"
        assert f"2025-{MOST_FINISHED + 4:05d}" in everything
        assert len(everything) == MOST_FINISHED + 1
