"""Why a candidate of an old search is not on its list any more, and who is told."""

from __future__ import annotations

from services.rpc.v1 import ingest_pb2
from services.search.disclosure.replay import _why_gone

CANDIDATE = {"watchlist": "op_liberal", "owner": "eastmoor"}
PERMITTED = {("op_liberal", "eastmoor")}
WITHDRAWN = ingest_pb2.ReferenceState(state="withdrawn", withdrawn_at_ms=5, withdrawal_reason="acquitted of it")


def test_an_owners_words_are_for_its_own_force() -> None:
    assert _why_gone(CANDIDATE, WITHDRAWN, PERMITTED, "eastmoor")["detail"] == "acquitted of it"
    told = _why_gone(CANDIDATE, WITHDRAWN, PERMITTED, "northshire")
    assert (told["why"], told["withdrawn_at_ms"]) == ("withdrawn", 5)
    assert "acquitted" not in str(told)


def test_who_may_not_search_an_owner_learns_nothing_of_its_references() -> None:
    assert _why_gone(CANDIDATE, WITHDRAWN, set(), "northshire")["why"] == "not_permitted"
    assert _why_gone(CANDIDATE, None, PERMITTED, "northshire")["why"] == "erased"
    assert _why_gone(CANDIDATE, ingest_pb2.ReferenceState(state="enrolled"), PERMITTED, "northshire") == {}
