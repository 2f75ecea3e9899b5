"""Who is trained to compare faces, today."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from services.review.casework.caller import Caller
from services.review.ports import ReviewStore
from services.shared.clock import Clock
from services.shared.errors import Forbidden


@dataclass(frozen=True, slots=True)
class CurrentTraining:
    """`trained_on` is None where only the identity provider's word is known."""

    trained_on: date | None
    expires_on: date


class TrainingCheck:
    """A person counts as trained while nothing that is known of them says otherwise, and something says so.

    Two sources: the token's `trained_until`, and the record that supervisors keep here. Where both speak, both have to
    be in date; the earlier expiry counts.
    """

    def __init__(self, store: ReviewStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def require(self, caller: Caller) -> CurrentTraining:
        """Raises Forbidden (`not_trained`) for who never was, or is no longer."""
        today = self._clock.now().date()
        record = self._store.training(caller.force, caller.person_id)
        ends = [record.expires_on] if record is not None else []
        if caller.principal.trained_until is not None:
            ends.append(caller.principal.trained_until)
        if not ends or min(ends) <= today or (record is not None and not record.is_current(today)):
            raise Forbidden(
                "Only people whose training in face comparison is in date judge candidates.",
                advice="Ask a supervisor to record your training.",
                context={"reasons": ["not_trained"]},
            )
        return CurrentTraining(record.trained_on if record is not None else None, min(ends))
