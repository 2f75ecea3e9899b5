"""Mutated pictures through the gate alone; `python -m tests.fuzz.gate` does a hundred thousand."""

from __future__ import annotations

import pytest

from tests.fuzz.gate import Tally, run, seeds

FILES = 1500


@pytest.mark.long
def test_mutated_pictures_are_decoded_or_refused_and_nothing_else() -> None:
    assert len(seeds()) >= 15, "of every allowed format"
    tally = Tally()
    # The longest includes the wait for a worker to start again, which a busy machine makes as long as it likes.
    run(FILES, minutes=20.0, seed=11, workers=2, tally=tally, slowest_s=60.0)
    assert tally.wrong == []
    assert tally.done == FILES
    decoded = {outcome for outcome in tally.outcomes if outcome.startswith("decoded")}
    assert len(decoded) >= 6, tally.outcomes
    assert tally.largest_bytes < 1024**3
