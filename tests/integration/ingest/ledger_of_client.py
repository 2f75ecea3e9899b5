"""The client's own ledger: what it was told, against what the platform says later."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock, Thread
from time import monotonic, sleep

import httpx

from services.rpc.v1 import events_pb2
from services.shared.ids import new_id
from tests.integration.ingest.fakes import FakePeers
from tests.integration.ingest.service import IngestProcess
from tests.support.waiting import wait_until

PATIENCE_S = 180.0


@dataclass
class ClientLedger:
    """Enrols images, each until it is acknowledged, and remembers every acknowledgement."""

    ingest: IngestProcess
    acknowledged: dict[bytes, str] = field(default_factory=dict)
    contradictions: list[str] = field(default_factory=list)
    expected: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.custodian = self.ingest.custodian()

    def start(self, images: list[bytes]) -> Thread:
        """Enrol in the background. Join it before `expect`."""
        sender = Thread(target=self._enrol_all, args=(images,))
        sender.start()
        return sender

    def expect(self, **counts: int) -> None:
        """What has to come of the images of one `start`, all of which are acknowledged by now."""
        self.expected.update(counts)
        assert len(self.acknowledged) == sum(self.expected.values())

    def _enrol_all(self, images: list[bytes]) -> None:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(self._enrol, images))

    def _enrol(self, image: bytes) -> None:
        key = {"Idempotency-Key": new_id()}
        deadline = monotonic() + PATIENCE_S
        while not self._try(image, key):
            assert monotonic() < deadline, "never acknowledged"
            sleep(0.05)

    def _try(self, image: bytes, key: dict[str, str]) -> bool:
        try:
            answer = self.custodian.enrol(image, headers=key, subject_id=f"NS-{image[:40].hex()}")
        except httpx.TransportError:
            return False
        if answer.status_code not in (200, 202):
            assert answer.status_code == 503, answer.text
            return False
        enrolment_id = answer.json()["enrolment_id"]
        with self._lock:
            if self.acknowledged.setdefault(image, enrolment_id) != enrolment_id:
                self.contradictions.append(f"{image!r} is {self.acknowledged[image]} and {enrolment_id}")
        return True

    def repeat_all(self) -> None:
        """Ask for everything once more: each must be what it was."""
        self._enrol_all(list(self.acknowledged))

    def check(self, peers: FakePeers, within_s: float = 180.0) -> None:
        """accepted = enrolled + refused + quarantined by id; nothing lost, nothing doubled, each intent one end."""
        ids = sorted(set(self.acknowledged.values()))
        assert len(ids) == len(self.acknowledged), "two images share an enrolment"
        outcomes: dict[str, str] = {}

        def is_settled() -> bool:
            outcomes.update(self.custodian.outcomes(ids))
            return len(outcomes) == len(ids) and "accepted" not in outcomes.values()

        wait_until(is_settled, within_s, lambda: f"everything to settle: {Counter(outcomes.values())} of {len(ids)}")
        assert self.contradictions == []
        assert Counter(outcomes.values()) == self.expected
        counts = self.ingest.ledger().count()
        assert sum(watchlist.accepted for watchlist in counts.watchlists) == len(ids)
        self._check_gallery(peers, outcomes)
        self._check_events(outcomes)
        self._check_audit(peers, outcomes)

    def _check_gallery(self, peers: FakePeers, outcomes: dict[str, str]) -> None:
        with ThreadPoolExecutor(6) as pool:
            ids = [each for each, state in outcomes.items() if state == "enrolled"]
            enrolled = {body["reference_id"] for body in pool.map(self.custodian.get, ids)}
        assert set(peers.gallery.references) == enrolled
        rebuilt = {i for batch in self.ingest.ledger().read_references("fake-model-1") for i in batch.reference_ids}
        assert rebuilt == enrolled

    def _check_events(self, outcomes: dict[str, str]) -> None:
        """Every outcome is announced; a repetition bears the same event_id."""
        announced: dict[str, set[str]] = {}

        def is_announced() -> bool:
            for event in self.ingest.events():
                kind = events_pb2.ReferenceEnrolled if "enrolled" in event.topic else events_pb2.EnrolmentRefused
                message = kind.FromString(event.value)
                announced.setdefault(message.enrolment_id, set()).add(message.event_id)
            return set(announced) == set(outcomes)

        wait_until(is_announced, 120, "every outcome's event")
        assert all(len(event_ids) == 1 for event_ids in announced.values())

    def _check_audit(self, peers: FakePeers, outcomes: dict[str, str]) -> None:
        assert set(outcomes) <= peers.audit.intents()
        wait_until(
            lambda: set(peers.audit.outcomes_by_activity()) == peers.audit.intents(),
            120,
            "every intent to have its end",
        )
        assert set(peers.audit.outcomes_by_activity().values()) == {1}
