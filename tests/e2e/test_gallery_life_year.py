"""A year in minutes: images daily, disposals, merges, withdrawals, erasures, two restores, a replay of everything.

At its end ledger = gallery = images by id, nobody who was erased is findable anywhere, and the audit log verifies.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.ids import new_id
from services.shared.ports.event_log import Event
from tests.e2e.test_gallery_life import (
    ORDER,
    STUB,
    erase,
    files_with,
    found_subjects,
    picture,
    run,
    template_of,
    wait_state,
)
from tests.support.platform import Platform
from tests.support.waiting import wait_until

pytestmark = pytest.mark.long

TOPICS = {
    kind: f"likeness.custody-{kind}.v1"
    for kind in ("image-received", "disposal-changed", "subject-merged", "image-withdrawn")
}
AT_START, A_MONTH = 24, 4


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("year"), settings=STUB) as running:
        yield running


class Owner:
    """The owner's side: what it sent, in order, and what should be searchable by now."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.sent: list[Event] = []
        self.images: dict[str, bytes] = {}
        self.enrolled: dict[str, str] = {}  # SHA-256 of an image: the subject that it stands under
        self.erased: dict[str, bytes] = {}
        self.month = 0
        self._number = 0

    def say(self, kind: str, **fields: Any) -> None:
        value = {
            "event_id": new_id(),
            "occurred_at": f"2025-{max(self.month, 1):02d}-{len(self.sent) % 28 + 1:02d}T10:00:00Z",
            "owner": "northshire",
            **fields,
        }
        event = Event(TOPICS[kind], f"northshire/{fields['subject_id']}", json.dumps(value).encode())
        self.sent.append(event)
        self.publish([event])

    def publish(self, events: list[Event]) -> None:
        log = SqliteEventLog(self.platform.data.root / "events.sqlite")
        log.publish(events)
        log.close()

    def send_image(self) -> None:
        self._number += 1
        image, subject_id = picture(10_000 + self._number), f"YEAR-{self._number}"
        sha256 = hashlib.sha256(image).hexdigest()
        self.images[sha256], self.enrolled[sha256] = image, subject_id
        self.say(
            "image-received",
            subject_id=subject_id,
            watchlist_id="custody",
            lawful_basis="pace_1984_s64a",
            captured_on=f"2025-{max(self.month, 1):02d}-01",
            custody_reference=f"C/{self._number}",
            capture_device=f"suite-{self._number % 3}",
            image=b64encode(image).decode(),
        )

    def some(self) -> tuple[str, str]:
        """SHA-256 and subject of one that nothing happened to yet."""
        drawn = random.Random(self.month * 100 + len(self.sent))
        alone = [(s, subject) for s, subject in sorted(self.enrolled.items()) if subject.startswith("YEAR-")]
        return drawn.choice(alone)

    def change_disposal(self) -> None:
        _, subject_id = self.some()
        number = subject_id.removeprefix("YEAR-")
        reference = {"custody_reference": f"C/{number}", "disposal": "charged", "disposal_on": "2025-01-01"}
        self.say("disposal-changed", subject_id=subject_id, **reference)

    def merge(self) -> None:
        sha256, subject_id = self.some()
        self.enrolled[sha256] = f"MERGED-{subject_id}"
        self.say("subject-merged", subject_id=subject_id, into_subject_id=f"MERGED-{subject_id}")

    def withdraw(self) -> None:
        sha256, subject_id = self.some()
        del self.enrolled[sha256]
        self.say("image-withdrawn", subject_id=subject_id, reason="taken under the wrong power")

    def erase(self, custodian: httpx.Client) -> None:
        sha256, subject_id = self.some()
        del self.enrolled[sha256]
        self.erased[subject_id] = self.images.pop(sha256)
        wait_state(custodian, erase(custodian, subject_id), "erased")


def standing(custodian: httpx.Client) -> dict[str, str]:
    """Every enrolled image with its subject, page by page."""
    found: dict[str, str] = {}
    after = ""
    while True:
        parameters: dict[str, str | int] = {"state": "enrolled", "limit": 1000, "after": after}
        page = custodian.get("/v1/enrolments", params=parameters).json()
        found |= {item["image_sha256"]: item["subject_id"] for item in page["enrolments"]}
        after = page["next_after"]
        if not after:
            return found


def wait_for(owner: Owner, custodian: httpx.Client) -> None:
    """Everything sent is taken, and what stands is what should."""

    def differs() -> dict[str, Any]:
        there = standing(custodian)
        missing = {s: subject for s, subject in owner.enrolled.items() if there.get(s) != subject}
        surplus = {s: subject for s, subject in there.items() if s not in owner.enrolled}
        return {"missing": sorted(missing.values()), "surplus": sorted(surplus.values())}

    wait_until(lambda: not any(differs().values()), 90, lambda: f"ledger and owner to agree: {differs()}", 0.3)


def restore(platform: Platform, saved: Path) -> None:
    """The ledger of some time ago, beside images, keys and events of now: a careless restore."""
    platform.kill("ingest")
    shutil.rmtree(platform.data.root / "ingest")
    shutil.copytree(saved, platform.data.root / "ingest")
    platform.restart("ingest")


def save(platform: Platform, saved: Path) -> None:
    platform.kill("ingest")
    shutil.copytree(platform.data.root / "ingest", saved)
    platform.restart("ingest")


def test_a_year(platform: Platform, tmp_path: Path) -> None:
    owner = Owner(platform)
    with platform.client("ingest", "custodian", timeout_s=120) as custodian:
        for _ in range(AT_START):
            owner.send_image()
        wait_for(owner, custodian)
        for owner.month in range(1, 13):
            for _ in range(A_MONTH):
                owner.send_image()
            owner.change_disposal()
            if owner.month in {4, 9}:
                owner.merge()
            if owner.month % 3 == 0:
                owner.withdraw()
            wait_for(owner, custodian)
            if owner.month % 4 == 2:
                owner.erase(custodian)
            if owner.month in {3, 7}:
                save(platform, tmp_path / f"ledger-{owner.month}")
            if owner.month in {5, 10}:
                restore(platform, tmp_path / f"ledger-{3 if owner.month == 5 else 7}")
                # The producer sends everything again, from its own records: erased people's images too.
                owner.publish(owner.sent)
                wait_for(owner, custodian)
        owner.publish(owner.sent)
        wait_for(owner, custodian)

        first = custodian.post("/v1/gallery/reconciliation", json={"is_deep": True}).json()
        second = custodian.post("/v1/gallery/reconciliation", json={"is_deep": True}).json()
        assert second["is_clean"], (first, second)
        assert second["compared"] == second["images"] == len(owner.enrolled)
        for subject_id, image in owner.erased.items():
            assert subject_id not in found_subjects(platform, image)
            again = custodian.post("/v1/erasures", json={"subject_id": subject_id, **ORDER})
            assert again.status_code == 404, "nothing of it stands"
        devices = {row["device"] for row in custodian.get("/v1/searchability").json()["rows"]}
        assert devices == {"suite-0", "suite-1", "suite-2"}
        templates = [template_of(platform, image) for image in owner.erased.values()]
    # What the producer sent once more was refused, and the topics are cleared of it.
    secrets = [*templates, *owner.erased.values()]
    root = platform.data.root
    wait_until(lambda: not files_with(root, *secrets), 60, lambda: f"nothing in {files_with(root, *secrets)}", 1.0)
    assert "Nothing differed" in run(platform, "gallery", "reconcile")
    command = [str(Path(sys.executable).with_name("likeness")), "audit", "verify", str(platform.data.root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
