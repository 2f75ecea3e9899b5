"""Review clocks: which rule, from which day, and until when a decision holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from services.ingest.life.retention import RetentionFile, ReviewedReference, due_review
from services.shared.errors import ConfigurationError

RULES = RetentionFile(None).rules()
CHARGED = ReviewedReference(
    "e", "custody", "northshire", "S-1", "2020-01-01", "C-1", "charged", "2020-02-01", "", "", ""
)


@pytest.mark.parametrize(
    ("changes", "rule", "due_on"),
    [
        ({}, "custody-investigation", date(2021, 12, 31)),
        ({"disposal": "convicted"}, "custody-conviction", date(2029, 12, 29)),
        ({"disposal": "no_further_action"}, "custody-no-conviction", date(2020, 2, 1)),
        ({"disposal": "acquitted", "disposal_on": ""}, "custody-no-conviction", date(2020, 1, 1)),
        ({"disposal": "convicted", "birth_band": "under_18"}, "custody-under-18", date(2022, 12, 31)),
        ({"watchlist_id": "sex_offenders", "disposal": "convicted"}, "sex-offenders", date(2024, 12, 30)),
    ],
)
def test_disposal_age_and_watchlist_set_the_clock(changes: dict[str, str], rule: str, due_on: date) -> None:
    review = due_review(replace(CHARGED, **changes), RULES)
    assert review is not None
    assert (review.rule_id, review.due_on) == (rule, due_on)


def test_a_decision_holds_until_its_day_unless_the_disposal_changes() -> None:
    decided = replace(CHARGED, disposal="convicted", decided_on="2026-01-01", next_due_on="2027-05-05")
    review = due_review(decided, RULES)
    assert review is not None
    assert review.due_on == date(2027, 5, 5)
    changed = due_review(replace(decided, disposal="acquitted", disposal_on="2026-03-01"), RULES)
    assert changed is not None
    assert (changed.due_on, changed.presume) == (date(2026, 3, 1), "erase")


@pytest.mark.parametrize("word", ["yesterday", "2026-02-30", "9999-12-31"])
def test_a_day_of_disposal_that_is_none_does_not_end_the_list(word: str) -> None:
    review = due_review(replace(CHARGED, disposal="acquitted", disposal_on=word), RULES)
    assert review is not None
    assert review.due_on == date(2020, 1, 1)
    decided = replace(CHARGED, disposal_on=word, decided_on="2026-01-01", next_due_on="2027-05-05")
    held = due_review(decided, RULES)
    assert held is not None
    assert held.due_on == date(2027, 5, 5)


def test_what_no_rule_fits_is_not_due() -> None:
    assert due_review(replace(CHARGED, watchlist_id="new_list"), RULES) is None


def test_rules_are_read_again_when_the_law_changes_them(tmp_path: Path) -> None:
    path = tmp_path / "retention.toml"
    rule = '[[rule]]\nid = "all"\nfrom = "captured"\nreview_after_days = {}\nagain_after_days = 1\npresume = "erase"\n'
    path.write_text(rule.format(10))
    file = RetentionFile(path)
    first = due_review(CHARGED, file.rules())
    path.write_text(rule.format(1000))
    second = due_review(CHARGED, file.rules())
    assert first is not None
    assert second is not None
    assert (first.due_on, second.due_on) == (date(2020, 1, 11), date(2022, 9, 27))
    path.write_text("[[rule]]\nid = 1\n")
    with pytest.raises(ConfigurationError):
        file.rules()
