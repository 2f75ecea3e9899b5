"""F23: consent, a reference or a training ends while a search that needs it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.rpc.v1 import audit_pb2
from tests.integration.search.conftest import filled_peers
from tests.integration.search.owners import Owner, watchlist_file
from tests.integration.search.peers import Peers, Reference, batch_of, vector_like
from tests.integration.search.process import SearchThread, problem

EAST = "OPL-2026-EASTMOOR"
NORTH = "OPL-2026-NORTHSHIRE"


@pytest.fixture
def peers() -> Iterator[Peers]:
    with filled_peers() as running:
        yield running


@pytest.fixture
def search(peers: Peers, tmp_path: Path) -> Iterator[SearchThread]:
    file = watchlist_file(tmp_path / "watchlists.toml", [Owner("northshire"), Owner("eastmoor")])
    with SearchThread(tmp_path, peers, WATCHLISTS_PATH=str(file)) as running:
        yield running


def withdraw(search: SearchThread, reference: str, force: str) -> None:
    client = search.operator(roles=["administrator"], sub="ad", force=force).http
    answer = client.post(f"/v1/agreements/{reference}/withdrawal", json={"reason": "ended"})
    assert answer.status_code == 200, answer.text


def once(act: Callable[[], None]) -> Callable[[Any], None]:
    """Does it at the first call that is about a search; the calls of the act itself come through here too."""
    done: list[bool] = []

    def hook(_what: Any) -> None:
        if not done:
            done.append(True)
            act()

    return hook


def listed(search: SearchThread) -> dict[str, Any]:
    return search.operator().answer(b"face:ann", watchlists=["custody", "op_liberal"], max_candidates="50")


def owners(answer: dict[str, Any]) -> set[str]:
    return {candidate["owner"] for candidate in answer["candidates"] if candidate["watchlist"] == "op_liberal"}


def test_an_owners_consent_that_ends_during_the_analysis(search: SearchThread, peers: Peers) -> None:
    assert owners(listed(search)) == {"eastmoor"}
    peers.embed.before = once(lambda: withdraw(search, EAST, "eastmoor"))
    answer = listed(search)
    assert owners(answer) == set()
    [scope] = [scope for scope in answer["searched"] if scope["watchlist"] == "op_liberal"]
    assert scope == {"watchlist": "op_liberal", "owners": ["northshire"], "agreements": [NORTH]}
    assert owners(listed(search)) == set()


def test_the_callers_own_consent_that_ends_during_the_analysis(search: SearchThread, peers: Peers) -> None:
    peers.embed.before = once(lambda: withdraw(search, NORTH, "northshire"))
    refused = search.operator().search(b"face:ann", watchlists=["op_liberal"])
    assert problem(refused, 403, "forbidden")["reasons"] == ["no_agreement_in_force"]
    [search_id] = peers.audit.searches()
    assert peers.audit.phases(search_id) == ["INTENT", "REFUSED"]


def test_consent_that_ends_when_the_answer_is_made_and_recorded(search: SearchThread, peers: Peers) -> None:
    """The log has the outcome already; the answer is withheld, and the log is told."""
    ending = once(lambda: withdraw(search, EAST, "eastmoor"))

    def after(entry: audit_pb2.AuditEntry) -> None:
        if entry.activity == "search" and entry.phase == audit_pb2.DONE:
            ending(entry)

    peers.audit.after = after
    refused = search.operator().search(b"face:ann", watchlists=["op_liberal"])
    assert problem(refused, 403, "forbidden")["reasons"] == ["permission_ended"]
    peers.audit.after = lambda _entry: None
    [search_id] = peers.audit.searches()
    assert peers.audit.phases(search_id) == ["INTENT", "DONE"]
    [withheld] = [e for e in peers.audit.entries if e.activity == "search_withheld"]
    assert (list(withheld.objects), withheld.details["reasons"]) == ([f"search:{search_id}"], "permission_ended")
    again = search.operator().see(search_id).json()
    assert (again["status"], again["problem"]["code"]) == ("refused", "forbidden")


def test_a_reference_is_not_returned_from_three_seconds_before_it_expires(search: SearchThread, peers: Peers) -> None:
    now = int(datetime.now(UTC).timestamp())
    batch = batch_of(
        [
            Reference("r-ends", "ENDS", vector_like("ann", 0.93), expires_at=now + 2),
            Reference("r-stays", "STAYS", vector_like("ann", 0.92), expires_at=now + 3600),
        ]
    )
    search.gallery().put(batch)
    subjects = [candidate["subject_id"] for candidate in listed(search)["candidates"]]
    assert "STAYS" in subjects
    assert "ENDS" not in subjects


def test_training_that_lapsed(search: SearchThread) -> None:
    today = datetime.now(UTC).date().isoformat()
    refused = search.operator(trained_until=today).search(b"face:ann")
    assert problem(refused, 403, "forbidden")["reasons"] == ["training_not_in_date"]
    refused = search.operator(trained_until=None).search(b"face:ann")
    assert problem(refused, 403, "forbidden")["reasons"] == ["training_not_in_date"]
