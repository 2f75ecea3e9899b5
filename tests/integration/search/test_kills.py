"""F3: the search process is killed or stopped in the middle of searches and started again on its data."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock

import httpx

from services.rpc.v1 import audit_pb2
from tests.integration.search.peers import Peers
from tests.integration.search.process import SearchProcess
from tests.integration.search.test_faults import is_closed, outcomes, status_of, stored_ids
from tests.support.waiting import wait_until

BOUND_S = 120.0

# Where a search is held while the process is killed -> its one outcome afterwards.
STEPS = {
    "embed called": ("UNKNOWN", "unknown"),
    "before intent": ("UNKNOWN", "unknown"),
    "after intent": ("UNKNOWN", "unknown"),
    "before done": ("UNKNOWN", "unknown"),
    "after done": ("DONE", "done"),
}


class Holding:
    """Holds each search at the step that its case reference names."""

    def __init__(self, peers: Peers) -> None:
        self.let_go = Event()
        self._reached: set[str] = set()
        self._lock = Lock()
        peers.embed.before = lambda image: self._hold("embed called") if b"embed called" in image else None
        peers.audit.before = lambda entry: self._hold_at("before", entry)
        peers.audit.after = lambda entry: self._hold_at("after", entry)

    def all_reached(self) -> bool:
        with self._lock:
            return self._reached == set(STEPS)

    def _hold_at(self, when: str, entry: audit_pb2.AuditEntry) -> None:
        step = f"{when} {audit_pb2.Phase.Name(entry.phase).lower()}"
        if entry.activity == "search" and entry.case_reference == step:
            self._hold(step)

    def _hold(self, step: str) -> None:
        with self._lock:
            self._reached.add(step)
        self.let_go.wait(2 * BOUND_S)


def test_killed_at_every_step_each_search_gets_one_outcome(peers: Peers, tmp_path: Path) -> None:
    with SearchProcess(tmp_path, peers, ORPHAN_AGE_S="1") as search:
        operator = search.operator()
        answered = operator.search(b"face:ann")
        # Its stage times are stored a moment after the answer; a kill before that takes them, and nothing else.
        wait_until(lambda: is_closed(search, stored_ids(search)[0]), BOUND_S, "the first search to be closed")
        keyed = {"Idempotency-Key": "lost"}
        holding = Holding(peers)
        with ThreadPoolExecutor(len(STEPS)) as pool:
            asking = [
                pool.submit(
                    operator.search,
                    b"face:ann|" + step.encode(),
                    case_reference=step,
                    headers=keyed if step == "embed called" else None,
                )
                for step in STEPS
            ]
            wait_until(holding.all_reached, BOUND_S, "every step to be reached")
            search.kill()
            for future in asking:
                error = future.exception(BOUND_S)
                assert isinstance(error, httpx.TransportError)
        search.start()
        search.wait_ready()
        ids = stored_ids(search)
        assert len(ids) == 1 + len(STEPS)
        wait_until(lambda: all(is_closed(search, search_id) for search_id in ids), BOUND_S, "an outcome of each")
        holding.let_go.set()

        assert operator.see(ids[0]).content == answered.content
        by_case = {entry.case_reference: entry.activity_id for entry in peers.audit.entries}
        for step, (outcome, status) in STEPS.items():
            assert outcomes(peers, by_case[step]) == [outcome], step
            assert status_of(search, by_case[step]) == status, step

        # The key of a search that was lost searches again.
        again = operator.search(b"face:ann|embed called", case_reference="embed called", headers=keyed)
        assert again.status_code == 200
        assert again.json()["search_id"] not in ids
        # What was held in the log's process came in late and changed nothing.
        time.sleep(0.5)
        for step, (outcome, _status) in STEPS.items():
            if step != "embed called":
                assert outcomes(peers, by_case[step]) == [outcome], step


def test_stopped_in_the_middle_of_a_search_it_answers_first(peers: Peers, tmp_path: Path) -> None:
    with SearchProcess(tmp_path, peers) as search:
        reached, go_on = Event(), Event()

        def wait(_image: bytes) -> None:
            reached.set()
            go_on.wait(BOUND_S)

        peers.embed.before = wait
        with ThreadPoolExecutor(2) as pool:
            asking = pool.submit(search.operator().search, b"face:ann")
            assert reached.wait(BOUND_S)
            stopping = pool.submit(search.stop)
            time.sleep(0.3)
            go_on.set()
            assert asking.result(BOUND_S).status_code == 200
            assert stopping.result(BOUND_S) == 0
        (search_id,) = peers.audit.searches()
        assert peers.audit.phases(search_id) == ["INTENT", "DONE"]
        assert is_closed(search, search_id)
