"""What search does when its peers or itself fail: real processes, killed and stopped for real."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from services.rpc.v1 import audit_pb2
from services.shared.errors import GalleryIncomplete, ModelMismatch, Overloaded
from tests.integration.search.owners import replaced
from tests.integration.search.peers import MODEL_ID, Peers, Reference, batch_of, vector_like, vector_of
from tests.integration.search.process import FORM, RunningSearch, SearchThread, problem
from tests.support.promises import within
from tests.support.waiting import wait_until

# While a peer is held up, and for whatever has no promise.
BOUND_S = 120.0
FAIL_CLOSED_S = 3.0
TERMINAL = {"DONE", "REFUSED", "FAILED", "UNKNOWN"}


def outcomes(peers: Peers, search_id: str) -> list[str]:
    return [phase for phase in peers.audit.phases(search_id) if phase in TERMINAL]


def stored_ids(search: RunningSearch) -> list[str]:
    with sqlite3.connect(search.root / "search.sqlite") as database:
        return [row[0] for row in database.execute("SELECT search_id FROM searches ORDER BY opened_at")]


def status_of(search: RunningSearch, search_id: str) -> str:
    status: str = search.operator().see(search_id).json()["status"]
    return status


class TestAuditFails:
    """F19: the log is down, read-only or slower than 2 s."""

    def test_stopped(self, search: RunningSearch, peers: Peers) -> None:
        made = search.operator().answer(b"face:ann")["search_id"]
        peers.stop("audit")
        for call in (
            lambda: search.operator().search(b"face:ann"),
            lambda: search.operator().search(b"noface"),
            lambda: search.operator().search(b"face:ann", purpose="curiosity"),
            lambda: search.operator(roles=[]).search(b"face:ann"),
            lambda: search.operator().see(made),
        ):
            response = within(FAIL_CLOSED_S, call)
            problem(response, 503, "audit_unavailable")
            assert response.headers["retry-after"]
        peers.start("audit")
        wait_until(
            lambda: search.operator().search(b"face:ann").status_code == 200, BOUND_S, "search after the audit is back"
        )
        wait_until(
            lambda: all(len(outcomes(peers, search_id)) == 1 for search_id in stored_ids(search)),
            BOUND_S,
            "one outcome of every search that was begun",
        )

    def test_slow(self, search: RunningSearch, peers: Peers) -> None:
        released = Event()
        peers.audit.before = lambda _entry: released.wait(BOUND_S)
        try:
            response = within(FAIL_CLOSED_S, lambda: search.operator().search(b"face:ann"))
            problem(response, 503, "audit_unavailable")
            response = within(FAIL_CLOSED_S, lambda: search.operator().see(stored_ids(search)[0]))
            problem(response, 503, "audit_unavailable")
        finally:
            released.set()

    def test_the_analysis_is_given_up_when_the_intent_fails(self, search: RunningSearch, peers: Peers) -> None:
        peers.audit.is_down = True
        may_go_on = Event()
        peers.embed.before = lambda _image: may_go_on.wait(BOUND_S)
        try:
            response = within(FAIL_CLOSED_S, lambda: search.operator().search(b"face:ann"))
            problem(response, 503, "audit_unavailable")
            assert peers.embed.cancelled.wait(BOUND_S)
        finally:
            may_go_on.set()

    def test_before_the_outcome(self, search: RunningSearch, peers: Peers) -> None:
        """The search was made and stored, but nothing of it is disclosed, then or later."""

        def fail_outcome(entry: audit_pb2.AuditEntry) -> None:
            peers.audit.is_down = entry.phase != audit_pb2.INTENT

        peers.audit.before = fail_outcome
        problem(search.operator().search(b"face:ann"), 503, "audit_unavailable")
        peers.audit.before = lambda _entry: None
        peers.audit.is_down = False
        (search_id,) = stored_ids(search)
        wait_until(lambda: outcomes(peers, search_id) == ["FAILED"], BOUND_S, "the outcome FAILED")
        seen = search.operator().see(search_id).json()
        assert seen["status"] == "failed"
        assert "candidates" not in seen
        with sqlite3.connect(search.root / "search.sqlite") as database:
            assert database.execute("SELECT count(*) FROM search_candidates").fetchone() == (0,)
            assert database.execute("SELECT result FROM searches").fetchone() == (None,)

    def test_after_the_outcome_was_kept(self, search: RunningSearch, peers: Peers) -> None:
        """The log has DONE but could not say so: there is no second outcome, and nothing is given out."""
        released = Event()

        def hang_after_done(entry: audit_pb2.AuditEntry) -> None:
            if entry.phase == audit_pb2.DONE and entry.activity == "search":
                released.wait(BOUND_S)

        peers.audit.after = hang_after_done
        try:
            response = within(FAIL_CLOSED_S, lambda: search.operator().search(b"face:ann"))
            problem(response, 503, "audit_unavailable")
        finally:
            peers.audit.after = lambda _entry: None
            released.set()
        for search_id in stored_ids(search):  # one, and more only where the machine was late
            wait_until(lambda made=search_id: is_closed(search, made), BOUND_S, "the sweep to close it")  # type: ignore[misc]
            assert outcomes(peers, search_id) == ["DONE"]
            assert status_of(search, search_id) == "failed"


def is_closed(search: RunningSearch, search_id: str) -> bool:
    with sqlite3.connect(search.root / "search.sqlite") as database:
        found = database.execute("SELECT is_closed FROM searches WHERE search_id = ?", (search_id,)).fetchone()
    return bool(found[0])


class TestEmbedFails:
    def test_stopped_and_overloaded(self, search: RunningSearch, peers: Peers) -> None:
        peers.embed.error = Overloaded("The queues are full.", advice="Later.")
        problem(search.operator().search(b"face:ann"), 503, "overloaded")
        peers.embed.error = None
        peers.stop("embed")
        response = within(FAIL_CLOSED_S, lambda: search.operator().search(b"face:ann"))
        problem(response, 503, "dependency_unavailable")
        for search_id in stored_ids(search):
            assert peers.audit.phases(search_id) == ["INTENT", "FAILED"]
        peers.start("embed")
        wait_until(lambda: search.operator().search(b"face:ann").status_code == 200, BOUND_S, "embed to be found again")

    def test_restarted_with_another_model(self, search: RunningSearch, peers: Peers) -> None:
        """F18: templates of two models never meet."""
        peers.embed.model_id = "another-model"
        problem(search.operator().search(b"face:ann"), 409, "model_mismatch")
        wait_until(
            lambda: httpx.get(f"{search.url}/readyz", timeout=60).status_code == 503, BOUND_S, "readiness to tell"
        )
        problem(search.operator().search(b"face:ann"), 409, "model_mismatch")
        assert search.gallery().describe().state == "model_mismatch"
        peers.embed.model_id = MODEL_ID
        wait_until(
            lambda: httpx.get(f"{search.url}/readyz", timeout=60).status_code == 200,
            BOUND_S,
            "the right model to be seen",
        )
        assert search.operator().search(b"face:ann").status_code == 200


class TestGallery:
    def test_searches_wait_until_the_whole_ledger_is_loaded(self, peers: Peers, tmp_path: Path) -> None:
        first_batch, go_on = Event(), Event()

        def hold_second() -> None:
            if first_batch.is_set():
                go_on.wait(BOUND_S)
            first_batch.set()

        peers.ledger.before_batch = hold_second
        peers.stop("ingest")
        search = SearchThread(tmp_path, peers)
        try:
            search.start()
            search.wait_alive()
            readiness = httpx.get(f"{search.url}/readyz", timeout=60)
            assert readiness.status_code == 503
            assert "gallery" in readiness.json()["waiting_for"]
            problem(search.operator().search(b"face:ann"), 503, "incomplete_index")
            peers.start("ingest")
            assert first_batch.wait(BOUND_S)
            problem(search.operator().search(b"face:ann"), 503, "incomplete_index")

            # While it loads: a new reference, a newer version of one in the ledger, and a withdrawal.
            gallery = search.gallery()
            assert gallery.describe().state == "loading"
            arriving = [
                Reference("r-new-1", "NEW", vector_like("ann", 0.97), version=9),
                Reference("r-099", "S099", vector_like("ann", 0.96), version=2),
            ]
            assert gallery.put(batch_of(arriving)).put == 2
            gallery.withdraw(["r-098"], [2])
            go_on.set()
            search.wait_ready()
            answer = search.operator().answer(b"face:ann", max_candidates=50)
            assert [c["subject_id"] for c in answer["candidates"][:3]] == ["ANN", "NEW", "S099"]
            assert answer["searchable"] == 105
            loaded = search.gallery().describe()
            assert (loaded.state, loaded.model_id) == ("ready", MODEL_ID)
            assert dict(loaded.searchable_by_watchlist) == {"custody": 106, "op_liberal": 2, "sex_offenders": 1}
        finally:
            go_on.set()
            search.end()

    def test_a_ledger_that_breaks_off_is_read_again(self, peers: Peers, tmp_path: Path) -> None:
        sent = 0

        def break_once() -> None:
            nonlocal sent
            sent += 1
            if sent == 3:
                raise RuntimeError("ingest dies here")

        peers.ledger.before_batch = break_once
        with SearchThread(tmp_path, peers) as search:
            assert search.operator().answer(b"face:ann")["searchable"] == 105
            assert sent == 3 + 4

    def test_what_ingest_may_not_send(self, search: RunningSearch) -> None:
        gallery = search.gallery()
        reference = Reference("x-1", "X", vector_of("x"))
        with pytest.raises(ModelMismatch):
            gallery.put(batch_of([reference], model_id="another-model"))
        broken = batch_of([reference])
        broken.versions.append(3)
        with pytest.raises(Exception, match="one length"):
            gallery.put(broken)
        with pytest.raises(Exception, match="unit"):
            gallery.put(batch_of([Reference("x-1", "X", 2 * vector_of("x"))]))
        assert search.operator().answer(b"face:x")["candidates"][0]["subject_id"] != "X"

    def test_a_put_and_a_withdrawal_count_at_once(self, search: RunningSearch) -> None:
        gallery, operator = search.gallery(), search.operator()
        gallery.put(batch_of([Reference("x-1", "X", vector_of("x"), version=5)]))
        assert operator.answer(b"face:x")["candidates"][0]["subject_id"] == "X"
        assert gallery.withdraw(["x-1"], [6]) == 1
        gallery.put(batch_of([Reference("x-1", "X", vector_of("x"), version=5)]))
        assert operator.answer(b"face:x")["candidates"][0]["subject_id"] != "X"

    def test_puts_before_the_gallery_is_open_are_to_be_sent_again(self, peers: Peers, tmp_path: Path) -> None:
        peers.stop("embed")
        search = SearchThread(tmp_path, peers)
        try:
            search.start()
            search.wait_alive()
            with pytest.raises(GalleryIncomplete):
                search.gallery().put(batch_of([Reference("x-1", "X", vector_of("x"))]))
        finally:
            search.end()


class TestIdempotency:
    """A23: the same request again is answered once; another under its key is refused."""

    def test_the_same_again(self, search: RunningSearch, peers: Peers) -> None:
        operator = search.operator()
        key = {"Idempotency-Key": "7b0a"}
        first = operator.search(b"face:ann", headers=key)
        again = operator.search(b"face:ann", headers=key)
        assert (again.status_code, again.content) == (200, first.content)
        assert len(stored_ids(search)) == 1
        assert peers.audit.entries[-1].activity == "search_view"
        problem(operator.search(b"face:bob", headers=key), 409, "idempotency_key_reused")
        changes: list[dict[str, Any]] = [{"purpose": "missing_person"}, {"max_candidates": 21}, {"face": 0}]
        for changed in changes:
            problem(operator.search(b"face:ann", headers=key, **changed), 409, "idempotency_key_reused")
        # The key is the person's own.
        other = search.operator(sub="op-8").search(b"face:ann", headers=key)
        assert other.status_code == 200
        assert other.json()["search_id"] != first.json()["search_id"]
        for bad in ("", "x" * 201, "a\tb"):
            problem(operator.search(b"face:ann", headers={"Idempotency-Key": bad}), 422, "invalid_request")

    def test_a_refusal_is_the_same_again_and_a_failure_is_tried_again(
        self, search: RunningSearch, peers: Peers
    ) -> None:
        operator = search.operator()
        refused = operator.search(b"faces:ann,bob", headers={"Idempotency-Key": "r"})
        calls = peers.embed.calls
        again = operator.search(b"faces:ann,bob", headers={"Idempotency-Key": "r"})
        first, second = (problem(answer, 409, "face_choice_needed") for answer in (refused, again))
        for face in first["faces"]:
            del face["chip_jpeg_base64"]  # shown once, kept nowhere
        assert first == second
        assert len(stored_ids(search)) == 1
        peers.embed.error = Overloaded("The queues are full.")
        problem(operator.search(b"face:ann", headers={"Idempotency-Key": "f"}), 503, "overloaded")
        peers.embed.error = None
        answered = operator.search(b"face:ann", headers={"Idempotency-Key": "f"})
        assert answered.status_code == 200
        assert operator.search(b"face:ann", headers={"Idempotency-Key": "f"}).content == answered.content
        assert peers.embed.calls >= calls + 2

    def test_twins(self, search: RunningSearch, peers: Peers) -> None:
        """Twenty at the same moment: one search, and every 200 is that search."""
        token = search.issuer.token()

        def ask(_number: int) -> httpx.Response:
            with httpx.Client(base_url=search.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http:
                form: dict[str, Any] = {**FORM, "offence": "twins"}
                return http.post(
                    "/v1/searches", data=form, files={"image": b"face:ann"}, headers={"Idempotency-Key": "t"}
                )

        with ThreadPoolExecutor(8) as pool:  # as many as may be under way on the smallest machine
            responses = list(pool.map(ask, range(20)))
        assert {response.status_code for response in responses} <= {200, 409}
        assert len({response.content for response in responses if response.status_code == 200}) == 1
        assert all(response.json()["code"] == "search_running" for response in responses if response.status_code == 409)
        assert len(stored_ids(search)) == 1


class TestPermissionEndsInTheMiddle:
    """F23: what is no longer shared when the answer leaves is not in it."""

    def _search(self, peers: Peers, tmp_path: Path, ends: str) -> httpx.Response:
        packaged = Path("services/shared/watchlists.toml").read_text("utf-8")
        path = tmp_path / "watchlists.toml"
        path.write_text(packaged, "utf-8")
        started, changed = Event(), Event()

        def wait(_image: bytes) -> None:
            started.set()
            changed.wait(BOUND_S)

        with SearchThread(tmp_path, peers, WATCHLISTS_PATH=str(path)) as search:
            peers.embed.before = wait
            with ThreadPoolExecutor(1) as pool:
                asking = pool.submit(search.operator().search, b"face:ann", watchlists=["custody", "op_liberal"])
                assert started.wait(BOUND_S)
                without = packaged.replace(f'owner = "{ends}"', f'owner = "{ends}"\nwithdrawn_on = 2026-03-01')
                replaced(path, without)
                changed.set()
                return asking.result(BOUND_S)

    def test_an_owner_withdraws(self, peers: Peers, tmp_path: Path) -> None:
        answer = self._search(peers, tmp_path, "eastmoor").json()
        assert "eastmoor" not in str(answer["candidates"])
        assert answer["searched"][1] == {
            "watchlist": "op_liberal",
            "owners": ["northshire"],
            "agreements": ["OPL-2026-NORTHSHIRE"],
        }
        assert answer["searchable"] == 105

    def test_the_callers_own_force_withdraws(self, peers: Peers, tmp_path: Path) -> None:
        problem(self._search(peers, tmp_path, "northshire"), 403, "forbidden")
        (search_id,) = peers.audit.searches()
        assert peers.audit.phases(search_id) == ["INTENT", "REFUSED"]


def test_more_searches_than_slots_are_shed_at_once(peers: Peers, tmp_path: Path) -> None:
    with SearchThread(tmp_path, peers, MAX_CONCURRENT_SEARCHES="2") as search:
        reached, go_on = Event(), Event()

        def wait(_image: bytes) -> None:
            reached.set()
            go_on.wait(BOUND_S)

        peers.embed.before = wait
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(search.operator().search, b"face:ann") for _ in range(2)]
            try:
                assert reached.wait(BOUND_S)
                wait_until(lambda: len(stored_ids(search)) == 2, BOUND_S, "both to run")
                problem(within(1, lambda: search.operator().search(b"face:ann")), 503, "overloaded")
            finally:
                go_on.set()
            assert [future.result(BOUND_S).status_code for future in running] == [200, 200]
        peers.embed.before = lambda _image: None
        assert search.operator().search(b"face:ann").status_code == 200
