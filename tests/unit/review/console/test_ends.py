"""What ends is told in words, by the day: nobody has to read a colour."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from types import SimpleNamespace

import pytest

from services.review.console.custodian_pages import standing
from services.review.model import Case, CaseState, UnsolvedEntry
from services.shared.watchlists import Agreement
from tests.unit.review.console.browser import Browser
from tests.unit.review.console.fake_desk import NOW, FakeDesk, sample_case

TODAY = NOW.date()
AGREEMENT = Agreement(
    reference="OPL-1", watchlist="op_liberal", owner="westhaven", signed_on=date(2026, 1, 5), expires_on=TODAY
)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"expires_on": TODAY - timedelta(days=1)}, "Expired"),
        ({"expires_on": TODAY}, "Expired"),  # the day of expiry no longer counts
        ({"expires_on": TODAY + timedelta(days=1)}, "Ends soon"),
        ({"expires_on": TODAY + timedelta(days=90)}, "Ends soon"),
        ({"expires_on": TODAY + timedelta(days=91)}, "In force"),
        ({"expires_on": TODAY + timedelta(days=91), "signed_on": TODAY + timedelta(days=1)}, "Not begun"),
        ({"expires_on": TODAY + timedelta(days=91), "withdrawn_on": TODAY}, "Withdrawn"),
    ],
)
def test_how_an_agreement_stands(changes: dict[str, date], word: str) -> None:
    assert standing(AGREEMENT.model_copy(update=changes), TODAY)[0] == word


class Keeping(FakeDesk):
    """One kept probe."""

    def _queue(self, caller: object, *, with_finished: bool = False) -> list[SimpleNamespace]:
        return [SimpleNamespace(request_id=self.case.request_id, state=CaseState.UNSOLVED)]


@pytest.mark.parametrize(("days", "word"), [(-1, "Ended"), (0, "Ended"), (1, "Ends soon"), (30, "Ends soon"), (31, "")])
def test_how_the_authority_of_a_kept_probe_stands(days: int, word: str) -> None:
    kept = UnsolvedEntry("DCI Holt", "A series.", "op-1", NOW - timedelta(days=90), TODAY + timedelta(days=days))
    case: Case = replace(sample_case(CaseState.UNSOLVED), unsolved=kept)
    browser = Browser(Keeping(case=case))
    browser.sign_in()
    shown = browser.get("/console/unsolved").text
    assert [one for one in ("Ended", "Ends soon") if f">{one}<" in shown] == ([word] if word else [])
