"""`likeness films` beside a real search service: what REST does, from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.search.film.keeping_cli import films_app
from services.shared.errors import LikenessError
from tests.integration.film.peers import FilmPeers
from tests.integration.film.test_jobs import ended, handed_in
from tests.integration.search.conftest import CUSTODY
from tests.integration.search.peers import batch_of
from tests.integration.search.process import SearchThread


@pytest.fixture
def search(tmp_path: Path) -> Iterator[SearchThread]:
    peers = FilmPeers()
    peers.ledger.batches = [batch_of(CUSTODY)]
    with peers.running(), SearchThread(tmp_path, peers, FILMS__CLAIM_S="1") as running:
        yield running


def test_films_are_listed_given_up_and_erased(search: SearchThread, tmp_path: Path) -> None:
    operator = search.operator()
    token = tmp_path / "operator.token"
    token.write_text(operator.http.headers["Authorization"].removeprefix("Bearer "))

    def likeness_films(*arguments: str) -> Result:
        return CliRunner().invoke(films_app, [*arguments, "--token", str(token), "--url", search.url])

    assert "No films are kept" in likeness_films("list").output
    film_id = handed_in(operator)
    assert ended(operator, film_id)["status"] == "done"
    assert film_id[:8] in likeness_films("list").output
    (listed,) = json.loads(likeness_films("list", "--json").output)["films"]
    assert (listed["film_id"], listed["status"]) == (film_id, "done")
    erased = likeness_films("erase", film_id, "--reason", "handed in by mistake")
    assert erased.exit_code == 0
    assert f"film {film_id}: erased" in erased.output
    assert operator.http.get(f"/v1/films/{film_id}").json()["erasure"]["reason"] == "handed in by mistake"
    missing = likeness_films("cancel", "nonsense")
    assert isinstance(missing.exception, LikenessError)
    assert missing.exception.code == "not_found"
    other = handed_in(operator)
    # It may have ended before the command comes: then there is nothing to give up, and it is said.
    given_up = likeness_films("cancel", other)
    if isinstance(given_up.exception, LikenessError):
        assert given_up.exception.code == "film_ended"
    else:
        assert f"film {other}: cancelled" in given_up.output
