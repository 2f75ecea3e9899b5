"""Rows of the table of faults on real servers, which are killed, paused and cut off in the middle of work. The client's
own ledger is the judge. docs/operations/faults.md says which row is tested where."""

from __future__ import annotations

import random
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from services.local.disclosure.compare import Verdict, compare
from services.search.adapters.milvus_schema import partition_name
from services.shared.ports.event_log import Event, ReceivedEvent
from tests.stack.faults_stage import ENGINES, Stage, stage, start_all
from tests.stack.kafka_groups import forget_offsets, members
from tests.stack.next_version import NextVersion
from tests.support.fault_ledger import Load, judge, until_served
from tests.support.fault_report import record
from tests.support.promises import within
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(1800)  # on a machine that does other work, with servers to be installed

AWAY_S = 1.0
WAIT_S = 300.0  # a restarted Milvus loads its collection
SERVICES = ("ingest", "embed", "search", "audit")
UNHEARD_OF = b"\xc2\x3e\x05later"  # field 1000, five bytes: what a producer of a later version adds


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("faults")) as running:
        yield running


@pytest.fixture(scope="module")
def known(on: Stage) -> tuple[str, bytes]:
    """A subject that has been enrolled before anything went wrong."""
    [subject] = on.images(1)
    on.ledger.enrol(subject[1], subject[0])
    judge(on.ledger)
    found_again(on, subject)
    return subject


def found_again(on: Stage, subject: tuple[str, bytes]) -> float:
    """Seconds until a search names the subject. One that is refused is asked again: a machine at its limit may refuse
    at any time, and never answer wrongly."""
    began = time.monotonic()
    wait_until(lambda: on.finds(subject), WAIT_S, f"{subject[0]} to be found again", 0.2)
    return time.monotonic() - began


def enrols_again(on: Stage, door: str = "") -> float:
    """Seconds until an enrolment is accepted again, by the ingest at `door` where there is a second one."""
    [(subject, image)] = on.images(1)
    with on.platform.client("ingest", "custodian") as custodian:
        custodian.base_url = httpx.URL(door or custodian.base_url)
        return until_served(lambda: on.ledger.try_once(custodian, image, subject), "an enrolment to be accepted")


def test_f01_f02_f03_every_service_killed_in_turn_under_load(on: Stage, known: tuple[str, bytes]) -> None:
    load = Load(on.ledger, on.images(60, unreadable=4))
    slowest_s = 0.0
    for number, service in enumerate(SERVICES, 1):
        load.reach(number * 3)
        on.platform.kill(service)
        began = time.monotonic()
        on.platform.restart(service)
        slowest_s = max(slowest_s, time.monotonic() - began)
    load.finish()
    tally = judge(on.ledger)
    assert tally.refused == 4
    found_again(on, known)
    record(
        "F1, F2, F3",
        "kill -9 of ingest, embed, search, audit, one after the other",
        ENGINES,
        recovery_s=slowest_s,
        tally=tally,
        times=len(SERVICES),
    )


def test_f05_all_services_killed_at_once_under_load(on: Stage, known: tuple[str, bytes]) -> None:
    subjects = on.images(20)
    on.publish([on.custody(*subject) for subject in subjects])
    load = Load(on.ledger, on.images(40))
    load.reach(5)
    for service in SERVICES:
        on.platform.kill(service)
    began = time.monotonic()
    for service in SERVICES:
        on.platform.launch(service)
    on.platform.wait_ready()
    recovery_s = time.monotonic() - began + enrols_again(on)
    load.finish()
    on.note_receipts([subject for subject, _ in subjects])
    tally = judge(on.ledger)
    found_again(on, known)
    record("F5", "kill -9 of all services at once", ENGINES, recovery_s=recovery_s, tally=tally)


def test_f05_all_servers_killed_at_once_under_load(on: Stage, known: tuple[str, bytes]) -> None:
    load = Load(on.ledger, on.images(40))
    load.reach(5)
    for server in on.servers.values():
        server.kill()
    time.sleep(AWAY_S)
    start_all(on.servers.values())
    recovery_s = enrols_again(on)
    recovery_s += found_again(on, known)
    load.finish()
    tally = judge(on.ledger, WAIT_S)
    record("F5", "kill -9 of all four servers at once", ENGINES, recovery_s=recovery_s, tally=tally)


class TestKafka:
    def test_f06_killed_the_outbox_fills_and_drains(self, on: Stage, known: tuple[str, bytes]) -> None:
        on.platform.restart("ingest", LIKENESS_INGEST__LIMITS__OUTBOX_EVENTS="12")
        on.servers["kafka"].kill()
        turned_away: httpx.Response | None = None
        deadline = time.monotonic() + WAIT_S
        with on.platform.client("ingest", "custodian") as custodian:
            while turned_away is None and time.monotonic() < deadline:
                [(subject, image)] = on.images(1)
                answer = on.ledger.try_once(custodian, image, subject)
                turned_away = answer if answer.status_code == 503 else None
                time.sleep(0.2)
        assert turned_away is not None, "the outbox was never full"
        assert turned_away.headers["retry-after"]
        found_again(on, known)  # search needs no Kafka
        on.servers["kafka"].start()
        began = time.monotonic()
        enrols_again(on)
        tally = judge(on.ledger)
        announced = on.announced(on.ledger.ids)
        assert set(announced) == on.ledger.ids
        assert {len(events) for events in announced.values()} == {1}, "one event of each outcome, however often it came"
        record(
            "F6",
            "kill -9 of the broker until the outbox is full",
            "Kafka",
            recovery_s=time.monotonic() - began,
            tally=tally,
        )
        on.platform.restart("ingest")

    def test_f07_f08_each_event_three_times_and_out_of_order(self, on: Stage, known: tuple[str, bytes]) -> None:
        subjects = on.images(9)
        kept, withdrawn = subjects[:6], subjects[6:]
        events = [on.custody(*subject) for subject in subjects]
        random.Random(8).shuffle(events)
        late = [on.withdrawn(subject) for subject, _ in withdrawn]
        on.publish([*late, *events, *events, *late, *events])
        on.note_receipts([subject for subject, _ in subjects])
        on.expect_withdrawn(subject for subject, _ in withdrawn)
        tally = judge(on.ledger)
        found_again(on, kept[0])
        record(
            "F7, F8",
            "each event three times, in any order, withdrawals before their images",
            "Kafka",
            tally=tally,
            times=len(events),
        )

    def test_f09_poison_goes_aside_and_the_others_move_on(self, on: Stage, known: tuple[str, bytes]) -> None:
        topic = on.real.names.custody_topic
        [good] = on.images(1)
        poison = [
            Event(topic, "northshire/P-1", b"\xff no protobuf at all"),
            Event(topic, "northshire/P-2", on.custody("P-2", b"x").value, {"schema-version": "99"}),
            Event(topic, "northshire/P-3", secrets.token_bytes(20 * 1024 * 1024)),
            on.custody("P-4", b""),
        ]
        began = time.monotonic()
        on.publish([*poison, on.custody(*good)])
        on.note_receipts([good[0]])
        moved_on_s = time.monotonic() - began

        def poisoned() -> list[ReceivedEvent]:
            return [letter for letter in on.dead_letters() if "/P-" in letter.key]

        wait_until(lambda: len(poisoned()) >= len(poison), WAIT_S, "every dead letter", 0.5)
        letters = poisoned()
        assert sorted(letter.key[-3:] for letter in letters) == ["P-1", "P-2", "P-3", "P-4"]
        assert all(letter.headers["dead-letter-tries"] == "3" for letter in letters)
        tally = judge(on.ledger)
        record(
            "F9",
            "no protobuf, another schema version, 20 MB of noise, no image",
            "Kafka",
            recovery_s=moved_on_s,
            tally=tally,
            times=len(poison),
        )

    def test_f25_offsets_that_are_lost_enrol_nothing_again(self, on: Stage, known: tuple[str, bytes]) -> None:
        """Everything is read once more from its beginning, and known already."""
        subjects = on.images(6)
        on.publish([on.custody(*subject) for subject in subjects])
        on.note_receipts([subject for subject, _ in subjects])
        before = judge(on.ledger)
        on.platform.kill("ingest", signal.SIGTERM)
        forget_offsets(on.kafka_address, on.real.names.group, WAIT_S)
        unread = on.unread()
        assert unread >= len(subjects)
        on.platform.restart("ingest")
        wait_until(lambda: on.unread() == 0, WAIT_S, lambda: f"{on.unread()} events to be read again", 0.5)
        tally = judge(on.ledger)
        assert tally == before
        record("F25", "the consumer group's offsets lost", "Kafka", tally=tally, times=unread)


class TestMilvus:
    def test_f10_killed_searches_are_refused_and_enrolments_wait(self, on: Stage, known: tuple[str, bytes]) -> None:
        on.servers["milvus"].kill()
        answer = within(3, lambda: on.search(known[1]))
        assert answer.status_code == 503, answer.text
        assert "candidates" not in answer.json()
        waiting = on.images(8)
        for subject, image in waiting:
            on.ledger.enrol(image, subject)
        on.servers["milvus"].start()
        recovery_s = found_again(on, known)
        tally = judge(on.ledger, WAIT_S)
        found_again(on, waiting[0])
        record("F10", "kill -9 of the server", "Milvus", recovery_s=recovery_s, tally=tally)

    def test_f11_slow_searches_end_at_their_deadline_then_at_once(self, on: Stage, known: tuple[str, bytes]) -> None:
        on.networks["milvus"].stall()
        threads = on.threads("search")
        with ThreadPoolExecutor(6) as pool:
            first = list(pool.map(lambda _: on.search(known[1], WAIT_S), range(6)))
        assert {answer.status_code for answer in first} == {503}
        # Open, the breaker answers without asking (the deadline is 5 s); one in five seconds is let through to see.
        assert within(4, lambda: on.search(known[1], WAIT_S)).status_code == 503
        assert on.threads("search") - threads < 64, "threads pile up"
        on.networks["milvus"].heal()
        recovery_s = found_again(on, known)
        record("F11", "nothing passes on the network", "Milvus", recovery_s=recovery_s, times=len(first) + 1)

    def test_f12_a_partition_that_is_not_loaded_is_said(self, on: Stage, known: tuple[str, bytes]) -> None:
        with on.milvus() as client:
            client.release_partitions(on.real.names.collection, [partition_name("custody")])
            answer = on.search(known[1])
            assert (answer.status_code, answer.json()["code"]) == (503, "incomplete_index"), answer.text
            assert "candidates" not in answer.json()
            client.load_partitions(on.real.names.collection, [partition_name("custody")])
        record("F12", "a partition released behind its back", "Milvus", recovery_s=found_again(on, known))

    def test_f13_one_row_of_a_hundred_lost_is_found_and_put_back(self, on: Stage, known: tuple[str, bytes]) -> None:
        subjects = on.images(100)
        load = Load(on.ledger, subjects)
        load.finish()
        judge(on.ledger)
        with on.milvus() as client:
            rows = client.query(
                on.real.names.collection,
                filter="version >= 0",
                output_fields=["subject_id", "reference_id"],
                consistency_level="Strong",
            )
            lost = random.Random(13).sample(sorted(rows, key=lambda row: str(row["row_id"])), -(-len(rows) // 100))
            client.delete(on.real.names.collection, ids=[row["row_id"] for row in lost])
        began = time.monotonic()
        with on.platform.client("ingest", "administrator", timeout_s=WAIT_S) as administrator:
            found = administrator.post("/v1/gallery/reconciliation", json={})
            assert found.status_code == 200, found.text
        recovery_s = time.monotonic() - began
        missing = found.json()["missing_in_gallery"]
        assert set(missing["ids"]) == {row["reference_id"] for row in lost}
        assert missing["count"] == len(lost)
        tally = judge(on.ledger)  # exactly the references of the record, by id
        for subject in subjects:
            if subject[0] in {row["subject_id"] for row in lost}:
                found_again(on, subject)
        record(
            "F13",
            "1 % of the rows deleted behind its back, reconciled by command",
            "Milvus",
            recovery_s=recovery_s,
            tally=tally,
            times=len(lost),
        )


class TestObjectStore:
    def test_f14_killed_nothing_is_accepted_by_halves(self, on: Stage, known: tuple[str, bytes]) -> None:
        on.servers["minio"].kill()
        [(subject, image)] = on.images(1)
        with on.platform.client("ingest", "custodian") as custodian:
            for _ in range(3):
                answer = within(20, lambda: on.ledger.try_once(custodian, image, subject))
                assert answer.status_code == 503, answer.text
        assert on.search(known[1]).status_code == 503, "a probe that cannot be kept is not searched"
        on.servers["minio"].start()
        recovery_s = enrols_again(on)
        on.ledger.enrol(image, subject)
        tally = judge(on.ledger)
        found_again(on, known)
        record("F14", "kill -9 of the server", "MinIO", recovery_s=recovery_s, tally=tally, times=3)

    def test_f14_cut_off_and_slow_under_load(self, on: Stage, known: tuple[str, bytes]) -> None:
        load = Load(on.ledger, on.images(30))
        load.reach(3)
        for _ in range(3):
            on.networks["minio"].cut()
            time.sleep(0.5)
            on.networks["minio"].heal()
            on.networks["minio"].slow(0.05)
            time.sleep(0.5)
            on.networks["minio"].heal()
        recovery_s = enrols_again(on)
        load.finish()
        tally = judge(on.ledger)
        record("F14", "its network cut and slowed", "MinIO", recovery_s=recovery_s, tally=tally, times=3)


class TestPostgreSQL:
    def test_killed_and_cut_off_under_load(self, on: Stage, known: tuple[str, bytes]) -> None:
        load = Load(on.ledger, on.images(40))
        load.reach(5)
        on.servers["postgres"].kill()
        answer = on.search(known[1])
        assert answer.status_code == 503, answer.text
        on.servers["postgres"].start()
        recovery_s = enrols_again(on) + found_again(on, known)
        for _ in range(3):
            on.networks["postgres"].cut()
            time.sleep(0.3)
            on.networks["postgres"].heal()
            time.sleep(0.3)
        load.finish()
        tally = judge(on.ledger)
        found_again(on, known)
        record(
            "F5",
            "kill -9 of the database, then its network cut three times",
            "PostgreSQL",
            recovery_s=recovery_s,
            tally=tally,
            times=4,
        )


class TestUpgrade:
    def test_f25_two_versions_of_ingest_on_one_ledger_and_in_one_group(
        self, on: Stage, known: tuple[str, bytes], tmp_path: Path
    ) -> None:
        """The newer one migrates the ledger under the older one, and takes its place. There is no way back."""
        newer, ledger = NextVersion.write(tmp_path), on.real.databases["ingest"]
        sources = {"PYTHONPATH": str(newer.sources)}
        try:
            with on.platform.beside("ingest", **sources) as ports:
                assert newer.schema(ledger) == newer.revision
                group = on.real.names.group
                wait_until(lambda: members(on.kafka_address, group) == 2, WAIT_S, "both to be members", 0.5)
                subjects = on.images(12)
                events = [on.custody(*subject) for subject in subjects]
                later = [replace(event, value=event.value + UNHEARD_OF) for event in events[6:]]
                on.publish([*events[:6], *later])
                enrols_again(on)
                enrols_again(on, f"http://127.0.0.1:{ports.http}")
                on.note_receipts([subject for subject, _ in subjects])
                judge(on.ledger)
                on.platform.kill("ingest", signal.SIGTERM)
            on.platform.launch("ingest")
            older = on.platform.process("ingest")
            wait_until(lambda: older.exit_code() is not None, WAIT_S, "the older one to end")
            assert "another version" in "".join(older.last_lines(30))
            on.platform.restart("ingest", **sources)
            began = time.monotonic()
            enrols_again(on)
            tally = judge(on.ledger)
            record(
                "F25",
                "two versions of ingest beside each other, the ledger of the newer one",
                "PostgreSQL, Kafka",
                recovery_s=time.monotonic() - began,
                tally=tally,
            )
        finally:
            on.platform.kill("ingest", signal.SIGTERM)
            newer.take_back(ledger)
            on.platform.restart("ingest")
        found_again(on, known)


class TestRestore:
    def test_f25_databases_gallery_and_images_restored_from_a_backup(
        self, on: Stage, known: tuple[str, bytes], tmp_path: Path
    ) -> None:
        before = on.search(known[1]).json()
        for service in (*SERVICES, "review"):
            on.platform.kill(service)
        on.back_up(tmp_path)
        on.lose_databases_and_gallery()
        assert on.lose_images() >= 2
        began = time.monotonic()
        on.restore(tmp_path)
        on.platform.start()
        recovery_s = time.monotonic() - began + found_again(on, known)
        with on.platform.client("search", "operator") as operator:
            seen = operator.get(f"/v1/searches/{before['search_id']}").json()
            assert seen["candidates"] == before["candidates"]
            again = operator.post(f"/v1/searches/{before['search_id']}/replay", params={"reason": "restored"})
            assert again.status_code == 200, again.text
            assert compare(before["candidates"], again.json()).verdict is Verdict.SAME
        tally = judge(on.ledger)
        enrols_again(on)
        record(
            "F25",
            "databases, gallery and images lost, restored from a backup",
            "PostgreSQL, Milvus, MinIO",
            recovery_s=recovery_s,
            tally=tally,
        )
