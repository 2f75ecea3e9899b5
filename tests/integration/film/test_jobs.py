"""Films through the REST side of a real search service, beside fake peers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from services.rpc.v1 import audit_pb2
from services.search.film.api_models import (
    FilmAccepted,
    FilmAnswer,
    FilmCancelled,
    FilmErased,
    ListedFilms,
    TrackSearches,
)
from services.shared.errors import DependencyUnavailable
from tests.integration.film.peers import FilmPeers
from tests.integration.search.conftest import CUSTODY
from tests.integration.search.peers import batch_of
from tests.integration.search.process import FORM, Operator, SearchProcess, SearchThread, problem
from tests.support.waiting import wait_until

FILM = b"film:ann,bob;;ann"
ENDED = {"done", "refused", "cancelled", "failed"}


@pytest.fixture
def peers() -> Iterator[FilmPeers]:
    peers = FilmPeers()
    peers.ledger.batches = [batch_of(CUSTODY)]
    with peers.running():
        yield peers


@pytest.fixture
def search(peers: FilmPeers, tmp_path: Path) -> Iterator[SearchThread]:
    with SearchThread(tmp_path, peers, FILMS__CLAIM_S="1") as running:
        yield running


def hand_in(operator: Operator, content: bytes, **fields: Any) -> httpx.Response:
    return operator.http.post("/v1/films", data={**FORM, **fields}, files={"film": ("film.mp4", content)})


def handed_in(operator: Operator, content: bytes = FILM) -> str:
    answer = hand_in(operator, content)
    assert answer.status_code == 202, answer.text
    return FilmAccepted.model_validate(answer.json()).film_id


def see(operator: Operator, film_id: str, **query: str) -> dict[str, Any]:
    answer = operator.http.get(f"/v1/films/{film_id}", params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    FilmAnswer.model_validate(body)
    return body


def ended(operator: Operator, film_id: str) -> dict[str, Any]:
    wait_until(lambda: see(operator, film_id)["status"] in ENDED, 120, lambda: f"the film: {see(operator, film_id)}")
    return see(operator, film_id, chips="true")


def test_a_film_becomes_tracks_and_a_track_a_search_like_any_other(search: SearchThread, peers: FilmPeers) -> None:
    operator = search.operator()
    film_id = handed_in(operator)
    film = ended(operator, film_id)
    assert (film["status"], film["is_whole"], film["opened_by"]) == ("done", True, "op-7")
    assert film["film"]["sha256"] == hashlib.sha256(FILM).hexdigest()
    assert film["progress"]["share"] == 1
    assert film["progress"]["segments_read"] == 3
    ann, bob = film["tracks"]
    assert [(round(span["from_s"]), round(span["until_s"])) for span in ann["appearances"]] == [(0, 2), (60, 62)]
    assert len(bob["appearances"]) == 1
    assert (ann["frames_seen"], bob["frames_seen"]) == (20, 10)
    assert base64.b64decode(ann["stills"][0]["chip_jpeg_base64"]) == b"chip of ann"

    made = operator.http.post(f"/v1/films/{film_id}/searches", json={"tracks": [0, 1]})
    assert made.status_code == 200, made.text
    TrackSearches.model_validate(made.json())
    first, second = (entry["answer"] for entry in made.json()["searches"])
    assert first["candidates"][0]["subject_id"] == "ANN"
    assert second["candidates"][0]["subject_id"] == "BOB"
    evidence = first["film"]
    assert (evidence["film_id"], evidence["track"]) == (film_id, 0)
    assert [frame["frame_number"] for frame in evidence["frames"]] == [still["frame_number"] for still in ann["stills"]]
    assert first["probe"]["sha256"] == evidence["frames"][0]["still_sha256"]
    assert any("mean of the raw cosines" in said for said in first["statements"])
    assert operator.see(first["search_id"]).json()["film"] == evidence

    assert [(pick["track"], pick["picked_by"]) for pick in see(operator, film_id)["searches"]] == [
        (0, "op-7"),
        (1, "op-7"),
    ]
    intent, done = peers.audit.of(film_id)
    assert (intent.phase, intent.operation) == (audit_pb2.INTENT, audit_pb2.COLLECTION)
    assert (done.phase, done.details["tracks"]) == (audit_pb2.DONE, "2")
    assert f"probe:{film['film']['sha256']}" in intent.objects
    (search_intent, _) = peers.audit.of(first["search_id"])
    assert search_intent.details["film"] == film_id
    assert search_intent.details["frames"] == ",".join(str(still["frame_number"]) for still in ann["stills"])
    assert any(entry.activity == "film_view" for entry in peers.audit.entries)
    assert search.metric('likeness_search_films_total{outcome="done"}') == 1
    assert search.metric("likeness_search_film_frames_total") == 90


def test_progress_shows_nobody_and_is_not_recorded(search: SearchThread, peers: FilmPeers) -> None:
    goes_on = Event()
    peers.films.before = lambda number: goes_on.wait(240) if number == 1 else None
    operator = search.operator()
    film_id = handed_in(operator)
    wait_until(lambda: see(operator, film_id)["progress"]["segments_read"] == 1, 120, "the first segment")
    film = see(operator, film_id)
    assert (film["status"], film["tracks"], film["progress"]["share"]) == ("reading", [], 0.3333)
    refused = operator.http.post(f"/v1/films/{film_id}/searches", json={"tracks": [0]})
    problem(refused, 409, "film_not_done")
    assert not any(entry.activity == "film_view" for entry in peers.audit.entries)
    goes_on.set()
    assert ended(operator, film_id)["status"] == "done"


def test_a_film_is_given_up_while_it_is_read_and_what_was_read_is_erased(
    search: SearchThread, peers: FilmPeers
) -> None:
    goes_on = Event()
    peers.films.before = lambda number: goes_on.wait(240) if number == 1 else None
    operator = search.operator()
    film_id = handed_in(operator)
    wait_until(lambda: see(operator, film_id)["progress"]["segments_read"] == 1, 120, "the first segment")
    answer = operator.http.delete(f"/v1/films/{film_id}")
    FilmCancelled.model_validate(answer.json())
    goes_on.set()
    film = see(operator, film_id)
    assert (film["status"], film["problem"]["cancelled_by"]) == ("cancelled", "op-7")
    problem(operator.http.delete(f"/v1/films/{film_id}"), 409, "film_ended")
    erasures = [entry for entry in peers.audit.entries if entry.activity == "film_cancel"]
    assert [entry.phase for entry in erasures] == [audit_pb2.INTENT, audit_pb2.DONE]
    assert [entry.phase for entry in peers.audit.of(film_id)] == [audit_pb2.INTENT, audit_pb2.FAILED]
    # The next film is not held up by it.
    assert ended(operator, handed_in(operator, FILM + b"|2"))["status"] == "done"
    assert see(operator, film_id)["status"] == "cancelled"


def test_embed_may_go_away_and_nothing_is_read_twice(search: SearchThread, peers: FilmPeers) -> None:
    seen: list[int] = []

    def before(number: int) -> None:
        seen.append(number)
        if number == 1 and seen.count(1) == 1:
            raise DependencyUnavailable("The worker is gone.")

    peers.films.before = before
    operator = search.operator()
    film = ended(operator, handed_in(operator))
    assert (film["status"], len(film["tracks"])) == ("done", 2)
    assert seen == [0, 1, 1, 2]
    assert peers.films.first_segments == [0, 1]


@pytest.mark.parametrize("content", [b"broken", b""])
def test_a_film_that_is_none_is_refused_at_once_and_nothing_is_kept(
    search: SearchThread, peers: FilmPeers, content: bytes
) -> None:
    refused = hand_in(search.operator(), content)
    problem(refused, 422, "film_undecodable" if content else "film_empty")
    assert peers.audit.entries[-1].phase == audit_pb2.REFUSED
    assert peers.audit.entries[-1].activity == "film"
    assert not [path for path in (search.root / "probes").rglob("*") if path.is_file()]


def test_a_film_of_which_nothing_decodes_is_refused_in_the_end(search: SearchThread, peers: FilmPeers) -> None:
    operator = search.operator()
    film_id = handed_in(operator, b"empty")
    film = ended(operator, film_id)
    assert (film["status"], film["problem"]["code"]) == ("refused", "film_undecodable")

    def phases() -> list[int]:
        return [entry.phase for entry in peers.audit.of(film_id)]

    # Refused first, recorded then, and recorded again after a crash between the two.
    wait_until(lambda: phases() == [audit_pb2.INTENT, audit_pb2.REFUSED], 120, lambda: f"the outcome: {phases()}")


def test_the_rules_of_a_search_hold_for_a_film(search: SearchThread, peers: FilmPeers) -> None:
    operator = search.operator()
    missing = operator.http.post("/v1/films", data={"purpose": "x"}, files={"film": ("f", FILM)})
    named = {entry["field"] for entry in problem(missing, 422, "invalid_request")["fields"]}
    assert {"case_reference", "offence", "source", "watchlists"} <= named
    problem(hand_in(operator, FILM, face="0"), 422, "invalid_request")
    problem(hand_in(search.operator(roles=["auditor"]), FILM), 403, "forbidden")
    problem(hand_in(search.operator(watchlists=["op_liberal"]), FILM), 403, "forbidden")
    problem(operator.http.post("/v1/films", data=dict(FORM)), 422, "invalid_request")
    without = httpx.post(f"{search.url}/v1/films", data=dict(FORM), files={"film": ("f", FILM)}, timeout=60)
    problem(without, 401, "unauthenticated")
    assert not peers.films.first_segments


def test_what_is_not_yours_is_not_there(search: SearchThread) -> None:
    film_id = handed_in(search.operator())
    for stranger in (search.operator(force="westhaven"), search.operator(watchlists=["op_liberal"])):
        for answer in (
            stranger.http.get(f"/v1/films/{film_id}"),
            stranger.http.delete(f"/v1/films/{film_id}"),
            stranger.http.post(f"/v1/films/{film_id}/searches", json={"tracks": [0]}),
        ):
            problem(answer, 404, "not_found")
    problem(search.operator().http.get("/v1/films/nonsense"), 404, "not_found")


def test_without_the_log_no_film_is_taken_and_no_track_is_shown(search: SearchThread, peers: FilmPeers) -> None:
    operator = search.operator()
    film_id = handed_in(operator)
    assert ended(operator, film_id)["status"] == "done"
    peers.audit.is_down = True
    problem(hand_in(operator, FILM), 503, "audit_unavailable")
    problem(operator.http.get(f"/v1/films/{film_id}"), 503, "audit_unavailable")
    peers.audit.is_down = False
    assert len(peers.films.first_segments) == 1


def test_tracks_are_picked_from_those_there_are(search: SearchThread) -> None:
    operator = search.operator()
    film_id = handed_in(operator)
    ended(operator, film_id)
    url = f"/v1/films/{film_id}/searches"
    problem(operator.http.post(url, json={"tracks": [7]}), 404, "not_found")
    problem(operator.http.post(url, json={"tracks": [0, 0]}), 422, "invalid_request")
    problem(operator.http.post(url, json={"tracks": []}), 422, "invalid_request")
    twice = [operator.http.post(url, json={"tracks": [0]}, headers={"Idempotency-Key": "k"}).json() for _ in range(2)]
    assert twice[0] == twice[1]
    assert len(see(operator, film_id)["searches"]) == 1


def test_the_same_key_is_the_same_film_and_another_request_is_refused(search: SearchThread, peers: FilmPeers) -> None:
    operator = search.operator()
    key = {"Idempotency-Key": "one"}
    films = [
        operator.http.post("/v1/films", data=FORM, files={"film": ("film.mp4", FILM)}, headers=key) for _ in range(2)
    ]
    first, second = (answer.json() for answer in films)
    assert first["film_id"] == second["film_id"]
    assert ended(operator, first["film_id"])["status"] == "done"
    assert len(peers.films.first_segments) == 1
    other = operator.http.post("/v1/films", data=FORM, files={"film": ("film.mp4", FILM + b"|2")}, headers=key)
    problem(other, 409, "idempotency_key_reused")
    colleague = search.operator(sub="op-8")
    theirs = colleague.http.post("/v1/films", data=FORM, files={"film": ("film.mp4", FILM)}, headers=key)
    assert theirs.json()["film_id"] != first["film_id"]


def test_a_film_of_which_people_were_searched_is_retained(search: SearchThread, peers: FilmPeers) -> None:
    operator = search.operator()
    film_id = handed_in(operator)
    until = ended(operator, film_id)["retain_until"]
    operator.http.post(f"/v1/films/{film_id}/searches", json={"tracks": [0]}).raise_for_status()
    refused = operator.http.post(f"/v1/films/{film_id}/erasure", json={"reason": "case closed"})
    assert until in problem(refused, 409, "retention_not_due")["detail"]
    assert not any(entry.activity == "film_erase" for entry in peers.audit.entries)


@pytest.fixture
def keeping_nothing(peers: FilmPeers, tmp_path: Path) -> Iterator[SearchThread]:
    with SearchThread(tmp_path, peers, FILMS__CLAIM_S="1", FILMS__RETAIN_DAYS="0") as running:
        yield running


def test_a_film_is_erased_with_its_frames_but_for_what_was_searched(
    keeping_nothing: SearchThread, peers: FilmPeers
) -> None:
    search = keeping_nothing
    operator = search.operator()
    film_id, twin_id = handed_in(operator), handed_in(operator)
    film = ended(operator, film_id)
    ended(operator, twin_id)
    url = f"/v1/films/{film_id}/erasure"
    made = operator.http.post(f"/v1/films/{film_id}/searches", json={"tracks": [0]}).json()["searches"][0]["answer"]
    problem(operator.http.post(url, json={"reason": " "}), 422, "invalid_request")

    def sealed() -> set[str]:
        return {path.name for path in (search.root / "probes").rglob("*") if path.is_file() and len(path.name) >= 64}

    # Nobody was searched in the twin: it may go at once, and takes nothing of what the other is made of.
    before = sealed()
    gone = operator.http.post(f"/v1/films/{twin_id}/erasure", json={"reason": "handed in twice"})
    assert gone.json() == {"film_id": twin_id, "status": "erased", "removed": 0}
    assert sealed() == before

    assert FilmErased.model_validate(operator.http.post(url, json={"reason": "case closed"}).json()).removed > 0
    erased = see(operator, film_id)
    assert (erased["status"], erased["tracks"]) == ("erased", [])
    assert erased["erasure"]["reason"] == "case closed"
    assert [pick["search_id"] for pick in erased["searches"]] == [made["search_id"]]
    left = {name[:64] for name in sealed()}
    assert left == {frame["still_sha256"] for frame in made["film"]["frames"]}
    problem(operator.http.post(url, json={"reason": "again"}), 409, "erased")
    problem(operator.http.post(f"/v1/films/{film_id}/searches", json={"tracks": [0]}), 409, "film_not_done")
    phases = [entry.phase for entry in peers.audit.entries if entry.activity == "film_erase"]
    assert phases.count(audit_pb2.DONE) == 2
    assert any(f"probe:{film['film']['sha256']}" in entry.objects for entry in peers.audit.entries)


def test_the_films_that_are_kept_are_listed_to_those_who_may_see_them(search: SearchThread) -> None:
    operator = search.operator()
    film_id = handed_in(operator)
    ended(operator, film_id)
    (listed,) = ListedFilms.model_validate(operator.http.get("/v1/films").json()).films
    assert (listed.film_id, listed.status, listed.is_due) == (film_id, "done", False)
    for stranger in (search.operator(force="westhaven"), search.operator(watchlists=["op_liberal"])):
        assert stranger.http.get("/v1/films").json() == {"films": []}
        problem(stranger.http.post(f"/v1/films/{film_id}/erasure", json={"reason": "x"}), 404, "not_found")
    problem(search.operator(roles=["auditor"]).http.get("/v1/films"), 403, "forbidden")


@pytest.mark.long
def test_a_search_service_killed_in_the_middle_goes_on_where_it_was(peers: FilmPeers, tmp_path: Path) -> None:
    goes_on = Event()
    peers.films.before = lambda number: goes_on.wait(240) if number == 2 else None
    with SearchProcess(tmp_path, peers, FILMS__CLAIM_S="1") as search:
        operator = search.operator()
        film_id = handed_in(operator)
        wait_until(lambda: see(operator, film_id)["progress"]["segments_read"] == 2, 120, "two segments")
        search.kill()
        goes_on.set()
        search.start()
        search.wait_ready()
        film = ended(search.operator(), film_id)
        assert (film["status"], len(film["tracks"])) == ("done", 2)
        assert film["progress"]["frames_looked_at"] == 90
        assert peers.films.first_segments == [0, 2]
        assert [entry.phase for entry in peers.audit.of(film_id)] == [audit_pb2.INTENT, audit_pb2.DONE]
