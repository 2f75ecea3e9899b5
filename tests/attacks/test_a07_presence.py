"""A7: is a person on a watchlist that one may not see? Not to be told by scores, counts, errors, the log or the time.

The same questions are asked with the person on the list and without, in random turns on one running service.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any

import pytest
from scipy.stats import mannwhitneyu

from services.rpc.v1 import audit_pb2
from services.shared.ids import new_id
from tests.attacks.scene import Scene, as_bearer, open_client, picture
from tests.integration.search.peers import Peers, Reference, batch_of, vector_of
from tests.integration.search.process import Operator, SearchThread, problem
from tests.support.casework import post_enrolment, wait_settled
from tests.support.platform import Platform

TURNS, QUESTIONS_A_TURN, ROUNDS = 24, 5, 3
SECRET = Reference("s-zed-1", "ZED", vector_of("zed"), "sex_offenders")
QUESTIONS: Mapping[str, Callable[[Operator], object]] = {
    "searched": lambda operator: operator.search(b"face:zed"),
    "denied": lambda operator: operator.search(b"face:zed", watchlists=["sex_offenders"]),
    "absent": lambda operator: operator.see(new_id()),
}
# What differs from search to search whoever is on which list.
_OF_THE_MOMENT = re.compile(r'"(search_id|searched_at|timings_ms)":("[^"]*"|\{[^}]*\})')


class Presence:
    """Puts the person on the list, and takes it off."""

    # Of all tests: a version counts only when it is higher than those before.
    _versions = count(1)

    def __init__(self, search: SearchThread) -> None:
        self._gallery = search.gallery()

    def set(self, is_present: bool) -> None:
        version = next(self._versions)
        if is_present:
            batch = batch_of([SECRET])
            batch.versions[0] = version
            assert self._gallery.put(batch).put == 1
        else:
            self._gallery.withdraw([SECRET.reference_id], [version])


def outsider(search: SearchThread, watchlists: tuple[str, ...] = ("custody", "op_liberal")) -> Operator:
    return search.operator(sub="op-out", watchlists=list(watchlists))


def lasting(text: str) -> str:
    return _OF_THE_MOMENT.sub("", text)


def entries_of(peers: Peers, count: int) -> list[tuple[Any, ...]]:
    """The last entries as they would be the same again: ids, digests of the answer and times left out."""
    return [
        (
            entry.activity,
            audit_pb2.Phase.Name(entry.phase),
            sorted(entry.objects),
            sorted((name, value) for name, value in entry.details.items() if name != "result_sha256"),
        )
        for entry in peers.audit.entries[-count:]
    ]


def test_answers_errors_and_audit_entries_are_the_same(search: SearchThread, peers: Peers) -> None:
    presence = Presence(search)
    seen: dict[bool, tuple[Any, ...]] = {}
    unknown = new_id()
    for is_present in (True, False):
        presence.set(is_present)
        answer = outsider(search).search(b"face:zed", watchlists=["custody", "op_liberal"], max_candidates="50")
        denied = outsider(search).search(b"face:zed", watchlists=["custody", "sex_offenders"])
        absent = outsider(search).see(unknown)
        assert (answer.status_code, denied.status_code, absent.status_code) == (200, 403, 404)
        seen[is_present] = (lasting(answer.text), denied.json(), absent.json(), entries_of(peers, 4))
    for there, away in zip(seen[True], seen[False], strict=True):
        assert there == away
    presence.set(True)
    insider = search.operator().answer(b"face:zed", watchlists=["custody", "sex_offenders"])
    assert insider["candidates"][0]["subject_id"] == "ZED"  # who may see it does: the test can tell
    mixed = search.operator().answer(b"face:zed", watchlists=["sex_offenders"])
    problem(outsider(search, ("custody",)).see(mixed["search_id"]), 404, "not_found")


def test_counts_in_an_answer_are_those_of_the_lists_asked_for(search: SearchThread) -> None:
    presence = Presence(search)
    counted = set()
    for is_present in (True, False, True):
        presence.set(is_present)
        answer = outsider(search).answer(b"face:zed")
        counted.add((answer["searchable"], len(answer["candidates"]), tuple(c["score"] for c in answer["candidates"])))
    assert len(counted) == 1


def test_a07_a_custodian_learns_of_nobody_on_a_list_that_the_token_does_not_name(
    platform: Platform, scene: Scene
) -> None:
    """What is about a person as a whole is refused before anybody is looked up: on the list, off it, or unheard of."""
    with open_client(platform, "ingest", **as_bearer(scene.token("custodian"))) as full:
        made = post_enrolment(full, picture(91), "A07-LISTED", watchlist="sex_offenders")
        assert made.status_code in {200, 202}, made.text
        enrolment_id = made.json()["enrolment_id"]
        wait_settled(full, [enrolment_id])
        assert full.get(f"/v1/enrolments/{enrolment_id}").status_code == 200  # it can be told by who may
    narrow = as_bearer(scene.token("custodian", watchlists=["custody"]))
    with open_client(platform, "ingest", **narrow) as client:
        why = {"reason": "Because.", "authority": "A07"}
        for path in ("/v1/erasures", "/v1/subjects/access"):
            answers = [
                client.post(path, json={"subject_id": subject, **why})
                for subject in ("A07-LISTED", "ATTACKED-1", "A07-UNHEARD-OF")
            ]
            assert {answer.status_code for answer in answers} == {403}
            assert len({str(lasting(answer.text)) for answer in answers}) == 1
        image = {"subject_id": "A07-LISTED", "image_sha256": hashlib.sha256(picture(91)).hexdigest()}
        assert client.post("/v1/custody/comparison", json={"images": [image]}).status_code == 403
        for path in ("/v1/erasures", "/v1/dead-letters"):
            assert client.get(path).status_code == 403
        told = [client.get(f"/v1/enrolments/{each}") for each in (enrolment_id, new_id())]
        assert {answer.status_code for answer in told} == {404}
        listed = client.get("/v1/enrolments", params={"limit": 1000})
        assert listed.status_code == 200, listed.text
        assert "A07-LISTED" not in listed.text


@pytest.mark.long
def test_the_time_does_not_tell(search: SearchThread) -> None:
    """Rank-sum test over searches, denials and absent searches: what it could tell by is under ten milliseconds.

    What tells does so whenever it is asked. What else a machine does may fall on one kind of turns, but not time and
    again: only what each of the rounds shows is held to be told.
    """
    told = set(QUESTIONS)
    for number in range(ROUNDS):
        told &= _told_by_time(search, seed=7 + number)
        if not told:
            return
    pytest.fail(f"the time tells: {told}, in each of {ROUNDS} rounds")


def _told_by_time(search: SearchThread, seed: int) -> set[str]:
    """The kinds of questions whose time differs. Of every two turns the person is there in one, drawn at random."""
    presence = Presence(search)
    operator = outsider(search)
    questions = {name: partial(ask, operator) for name, ask in QUESTIONS.items()}
    draw = random.Random(seed)
    turns = [is_present for _ in range(TURNS // 2) for is_present in draw.sample([True, False], 2)]
    times: dict[str, dict[bool, list[float]]] = {name: {True: [], False: []} for name in questions}
    for ask in questions.values():
        ask()  # the first of its kind is slower
    for is_present in turns:
        presence.set(is_present)
        for _ in range(QUESTIONS_A_TURN):
            for name, ask in questions.items():
                started = time.perf_counter()
                ask()
                times[name][is_present].append((time.perf_counter() - started) * 1000)
    return {name for name, by_presence in times.items() if _tells(by_presence)}


def _tells(by_presence: Mapping[bool, list[float]]) -> bool:
    there, away = by_presence[True], by_presence[False]
    # The share of pairs in which the one is slower than the other: 0.5 tells nothing.
    share = mannwhitneyu(there, away).statistic / (len(there) * len(away))
    shift_ms = abs(sorted(there)[len(there) // 2] - sorted(away)[len(away) // 2])
    return bool(shift_ms >= 10 and not 0.3 < share < 0.7)
