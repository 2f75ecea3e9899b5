"""A year of a gallery, in minutes: what owners send, what the law and accidents do to it, and what has to hold after.

    python -m tests.e2e.year [--start 1000] [--a-month 120] [--synthetic 0] [--synthetic-a-month 0]

Everything is real but the networks, which are the stand-in. At the unit's own size most references are labelled
synthetic ones, which have a template and no image; everything happens to those with images:
`--start 2000 --a-month 100 --synthetic 105500 --synthetic-a-month 8900` is 107,500 at the start and 300 a day.
`--start 107500 --a-month 9000 --pixels 80` is the same with an image for each of them; it takes hours.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from services.local.deployment import HOST, ServicePorts
from services.rpc.clients import EmbedClient, LedgerClient
from services.rpc.v1 import common_pb2, embed_pb2, ingest_pb2
from services.shared.adapters.sqlite_event_log import SqliteEventLog
from services.shared.ids import new_id
from services.shared.ports.event_log import Event
from tests.e2e.test_gallery_life import ORDER, STUB, erase, files_with, found_subjects
from tests.support.candidate import CandidateEmbed, candidate_ports, knows_candidate
from tests.support.casework import post_search
from tests.support.channels import ready_channel
from tests.support.platform import Platform
from tests.support.waiting import wait_until

TOPICS = {
    kind: f"likeness.custody-{kind}.v1"
    for kind in ("image-received", "disposal-changed", "subject-merged", "image-withdrawn")
}
OWNER = "northshire"
AGREEMENT = "OPL-2026-NORTHSHIRE"
MERGES, WITHDRAWALS, ERASURES = {4, 9}, {3, 6, 9, 12}, {2, 6, 10}
SAVES, RESTORES = {3, 7}, {5: 3, 10: 7}  # a month: the month of the ledger that comes back
MIGRATION, END_OF_AGREEMENT = 6, 8
NEW_MODEL = "stub-recognises-nobody-2"
_MIN_SHADOWS = 5
# So that a kill comes in the middle.
_SLOWLY = {"LIKENESS_INGEST__MIGRATION__IMAGES_PER_S": "1", "LIKENESS_INGEST__MIGRATION__BATCH": "2"}


def picture(seed: int, pixels: int = 160) -> bytes:
    """Noise as a JPEG: its bytes are nobody else's and do not compress."""
    noise = np.random.default_rng(seed).integers(0, 255, (pixels, pixels, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@dataclass(frozen=True)
class Scale:
    """Images at the start, and new ones each month; synthetic references beside them. `patience_s`: for the ledger to
    come to agree with the owner. `pixels`: the side of a picture."""

    at_start: int = 24
    a_month: int = 4
    synthetic: int = 0
    synthetic_a_month: int = 0
    patience_s: float = 120.0
    pixels: int = 160


@dataclass
class Owner:
    """The owner's side: what it sent, in order, and what should be enrolled by now."""

    platform: Platform
    pixels: int = 160
    month: int = 0
    sent: list[Event] = field(default_factory=list)
    enrolled: dict[str, str] = field(default_factory=dict)  # SHA-256 of an image: the subject that it stands under
    seeds: dict[str, int] = field(default_factory=dict)
    erased: dict[str, bytes] = field(default_factory=dict)
    _held: list[Event] | None = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is said in the block is published together at its end."""
        self._held = []
        yield
        held, self._held = self._held, None
        self.publish(held)

    def say(self, kind: str, **fields: Any) -> None:
        value = {
            "event_id": new_id(),
            "occurred_at": f"2025-{max(self.month, 1):02d}-{len(self.sent) % 28 + 1:02d}T10:00:00Z",
            "owner": OWNER,
            **fields,
        }
        event = Event(TOPICS[kind], f"{OWNER}/{fields['subject_id']}", json.dumps(value).encode())
        self.sent.append(event)
        if self._held is None:
            self.publish([event])
        else:
            self._held.append(event)

    def publish(self, events: list[Event]) -> None:
        log = SqliteEventLog(self.platform.data.root / "events.sqlite")
        for start in range(0, len(events), 500):
            log.publish(events[start : start + 500])
        log.close()

    def picture(self, seed: int) -> bytes:
        return picture(seed, self.pixels)

    def send_image(self, kind: str = "YEAR", **fields: str) -> None:
        number = len(self.seeds) + 1
        image, subject_id = self.picture(10_000 + number), f"{kind}-{number}"
        sha256 = hashlib.sha256(image).hexdigest()
        self.seeds[sha256], self.enrolled[sha256] = 10_000 + number, subject_id
        said = {
            "watchlist_id": "custody",
            "lawful_basis": "pace_1984_s64a",
            "captured_on": f"2025-{max(self.month, 1):02d}-01",
            "custody_reference": f"C/{number}",
            "capture_device": f"suite-{number % 3}",
            "image": b64encode(image).decode(),
            **fields,
        }
        self.say("image-received", subject_id=subject_id, **said)

    def some(self) -> tuple[str, str]:
        """SHA-256 and subject of one that nothing happened to yet."""
        drawn = random.Random(self.month * 100 + len(self.sent))
        alone = [(s, subject) for s, subject in sorted(self.enrolled.items()) if subject.startswith("YEAR-")]
        return drawn.choice(alone)

    def change_disposal(self) -> None:
        _, subject_id = self.some()
        reference = f"C/{subject_id.removeprefix('YEAR-')}"
        self.say(
            "disposal-changed",
            subject_id=subject_id,
            custody_reference=reference,
            disposal="charged",
            disposal_on="2025-01-01",
        )

    def merge(self) -> None:
        sha256, subject_id = self.some()
        self.enrolled[sha256] = f"MERGED-{subject_id}"
        self.say("subject-merged", subject_id=subject_id, into_subject_id=f"MERGED-{subject_id}")

    def withdraw(self) -> None:
        sha256, subject_id = self.some()
        del self.enrolled[sha256]
        # After every image that was said until now: a withdrawal takes back what was captured up to then.
        at = f"2025-{max(self.month, 1):02d}-28T20:00:00Z"
        self.say("image-withdrawn", occurred_at=at, subject_id=subject_id, reason="taken under the wrong power")


@dataclass
class Year:
    """One platform through twelve months. `run` raises AssertionError where something does not hold."""

    platform: Platform
    candidate: CandidateEmbed
    candidate_ports: ServicePorts
    saved: Path
    scale: Scale = field(default_factory=Scale)
    figures: dict[str, Any] = field(default_factory=dict)
    synthetic: int = 0
    # Between these ids of enrolments are synthetic references alone.
    _synthetic_ids: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def on(cls, root: Path, saved: Path, scale: Scale) -> Year:
        """With a platform of its own, not yet started."""
        ports = candidate_ports()
        settings = {
            **STUB,
            **knows_candidate(ports),
            "LIKENESS_INGEST__MIGRATION__MIN_SHADOW_SEARCHES": str(_MIN_SHADOWS),
            "LIKENESS_INGEST__MIGRATION__IMAGES_PER_S": "200",
            "LIKENESS_INGEST__MIGRATION__BATCH": "256",
            "LIKENESS_SEARCH__SHADOW__AT_MOST_PER_S": "20",
        }
        platform = Platform(root, settings=settings)
        embed = CandidateEmbed(platform, ports, {**STUB, "LIKENESS_EMBED__MODEL__STUB_NUMBER": "2"})
        return cls(platform, embed, ports, saved, scale)

    def run(self) -> dict[str, Any]:
        started = time.monotonic()
        self.owner = Owner(self.platform, self.scale.pixels)
        try:
            with self._client("custodian") as self.custodian:
                self._timed("start", self._start)
                for month in range(1, 13):
                    self._timed(f"month {month}", partial(self._month, month))
                self.owner.publish(self.owner.sent)
                self._timed("replay", self._wait)
                self._timed("agreement of the stores", self._hold)
        finally:
            self.candidate.stop()
        self._timed("nothing of the erased", self._nothing_of_the_erased)
        self._timed("audit verified", self._verified)
        self.figures |= {
            "events": len(self.owner.sent),
            "enrolled": len(self.owner.enrolled),
            "erased": len(self.owner.erased),
            "synthetic": self.synthetic,
            "seconds": round(time.monotonic() - started),
        }
        return self.figures

    def _timed(self, what: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        work()
        self.figures.setdefault("seconds_of", {})[what] = round(time.monotonic() - started, 1)

    # --- what happens

    def _start(self) -> None:
        with self.owner.at_once():
            for _ in range(self.scale.at_start):
                self.owner.send_image()
            for _ in range(3):
                self.owner.send_image("LIBERAL", watchlist_id="op_liberal", agreement_reference=AGREEMENT)
        self._wait()
        self._fill(self.scale.synthetic)

    def _fill(self, more: int) -> None:
        """As many synthetic references as there should be; those that a restored ledger lacks are made anew."""
        self.synthetic += more
        if not self.synthetic:
            return
        first = new_id()
        pictures = sum(not subject.startswith("LIBERAL-") for subject in self.owner.enrolled.values())
        request = ingest_pb2.FillSyntheticRequest(
            watchlist_id="custody",
            owner=OWNER,
            until_count=pictures + self.synthetic,
            seed=7,
            actor=common_pb2.Actor(person_id="year", force=OWNER, roles=["administrator"]),
        )
        with self.platform.channel("ingest") as channel:
            LedgerClient(channel).fill_synthetic(request)
        self._synthetic_ids.append((first, new_id()))

    def _month(self, month: int) -> None:
        owner = self.owner
        owner.month = month
        with owner.at_once():
            for _ in range(self.scale.a_month):
                owner.send_image()
        owner.change_disposal()
        if month in MERGES:
            owner.merge()
        if month in WITHDRAWALS:
            owner.withdraw()
        self._wait()
        self._fill(self.scale.synthetic_a_month)
        if month in ERASURES:
            self._erase()
        if month == MIGRATION:
            self._migrate()
        if month == END_OF_AGREEMENT:
            self._end_agreement()
        if month in SAVES:
            self._with_ingest_down(lambda: self._save(month))
        if month in RESTORES:
            self._with_ingest_down(lambda: self._restore(RESTORES[month]))
            # The producer sends everything again, from its own records: erased people's images too.
            owner.publish(owner.sent)
            self._wait()
            self._fill(0)
            # What the gallery learnt after the ledger had been saved is nobody's now.
            found = self.custodian.post("/v1/gallery/reconciliation", json={"is_deep": False}).json()
            assert found["surplus_in_gallery"]["count"], found

    def _erase(self) -> None:
        sha256, subject_id = self.owner.some()
        del self.owner.enrolled[sha256]
        self.owner.erased[subject_id] = self.owner.picture(self.owner.seeds[sha256])
        erasure_id = erase(self.custodian, subject_id)

        def state() -> str:
            found: str = self.custodian.get(f"/v1/erasures/{erasure_id}").json()["state"]
            return found

        wait_until(lambda: state() == "erased", self.scale.patience_s, lambda: f"the erasure, {state()}")

    def _migrate(self) -> None:
        """To another model, with everything that is asked for: shadow searches, two people, their evidence."""
        self.candidate.__enter__()
        self.platform.restart("ingest", **_SLOWLY)
        probe = self.owner.picture(self.owner.seeds[next(iter(self.owner.enrolled))])
        with self._client("administrator", "boss") as boss, self._client("supervisor", "one") as one:
            begun = self._act(boss, "", {"reason": "a better model"})
            path = f"/{begun['migration_id']}"
            self._kill_in_the_middle(boss, path)

            def is_shadowed() -> bool:
                with self._client("operator", service="search") as operator:
                    assert post_search(operator, probe).status_code == 200
                report = boss.get(f"/v1/model-migrations{path}").json()
                made: int = report["shadow"].get("searches", 0)
                return report["migration"]["state"] == "shadowing" and made >= _MIN_SHADOWS

            wait_until(is_shadowed, self.scale.patience_s, "every image under the new model, and shadow searches", 0.3)
            evidence = json.dumps({"format": 1, "model": {"model_id": NEW_MODEL}, "summaries": []})
            approval = {"evidence": evidence, "accepted_losses": 0}
            self._act(one, f"{path}/approvals", approval)
            with self._client("administrator", "two") as two:
                self._act(two, f"{path}/approvals", approval)
            self._act(boss, f"{path}/switch")
            self._act(boss, f"{path}/finish")

    def _kill_in_the_middle(self, boss: httpx.Client, path: str) -> None:
        """ingest dies while it looks at images with the other model, and goes on with what it had."""

        def embedded() -> int:
            found: int = boss.get(f"/v1/model-migrations{path}").json()["progress"]["embedded"]
            return found

        wait_until(lambda: embedded() > 0, self.scale.patience_s, "the first images under the new model", 0.1)
        self.platform.kill("ingest")
        self.platform.restart("ingest")
        self.figures["embedded_before_the_kill"] = embedded()

    def _end_agreement(self) -> None:
        with self._client("administrator", service="search") as administrator:
            ended = administrator.post(f"/v1/agreements/{AGREEMENT}/withdrawal", json={"reason": "not renewed"})
            assert ended.status_code == 200, ended.text

    def _with_ingest_down(self, action: Any) -> None:
        self.platform.kill("ingest")
        action()
        self.platform.restart("ingest")

    def _save(self, month: int) -> None:
        shutil.copytree(self.platform.data.root / "ingest", self.saved / f"ledger-{month}")

    def _restore(self, month: int) -> None:
        """The ledger of some time ago, beside images, keys and events of now: a careless restore."""
        shutil.rmtree(self.platform.data.root / "ingest")
        shutil.copytree(self.saved / f"ledger-{month}", self.platform.data.root / "ingest")

    # --- what has to hold

    def _wait(self) -> None:
        """Everything sent is taken, and what stands is what should."""

        def differs() -> dict[str, list[str]]:
            there = self._standing()
            wanted = self.owner.enrolled
            missing = {subject for sha256, subject in wanted.items() if there.get(sha256) != subject}
            return {"missing": sorted(missing), "surplus": sorted(set(there) - set(wanted))}

        wait_until(
            lambda: not any(differs().values()),
            self.scale.patience_s,
            lambda: f"month {self.owner.month}: ledger and owner to agree: {str(differs())[:2000]}",
            0.3,
        )

    def _standing(self) -> dict[str, str]:
        """Every enrolled image with its subject, page by page."""
        found: dict[str, str] = {}
        after = ""
        while True:
            parameters: dict[str, str | int] = {"state": "enrolled", "limit": 1000, "after": after}
            page = self.custodian.get("/v1/enrolments", params=parameters).json()
            found |= {item["image_sha256"]: item["subject_id"] for item in page["enrolments"] if item["image_sha256"]}
            after = page["next_after"]
            if not after:
                return found
            after = next((last for first, last in self._synthetic_ids if first <= after < last), after)

    def _hold(self) -> None:
        """Ledger = gallery = images; the erased are not found; the agreement that ended counts."""
        deep = {"is_deep": True}
        first = self.custodian.post("/v1/gallery/reconciliation", json=deep).json()
        second = self.custodian.post("/v1/gallery/reconciliation", json=deep).json()
        assert second["is_clean"], (first, second)
        assert second["images"] == len(self.owner.enrolled)
        assert second["compared"] == len(self.owner.enrolled) + self.synthetic
        with self._client("operator", service="search") as operator:
            answer = post_search(operator, self.owner.picture(self.owner.seeds[next(iter(self.owner.enrolled))]))
            assert answer.json()["model"]["model_id"] == NEW_MODEL, answer.text
            refused = post_search(operator, self.owner.picture(1), ["op_liberal"])
            assert (refused.status_code, refused.json()["reasons"]) == (403, ["no_agreement_in_force"]), refused.text
        for subject_id, image in self.owner.erased.items():
            assert subject_id not in found_subjects(self.platform, image)
            again = self.custodian.post("/v1/erasures", json={"subject_id": subject_id, **ORDER})
            assert again.status_code == 404, "nothing of it stands"
        devices = {row["device"] for row in self.custodian.get("/v1/searchability").json()["rows"]}
        assert devices == {"suite-0", "suite-1", "suite-2"}
        self.templates = [template for image in self.owner.erased.values() for template in self._templates(image)]

    def _nothing_of_the_erased(self) -> None:
        """What the producer sent once more was refused, and the topics are cleared of it."""
        root = self.platform.data.root
        secrets = [*self.templates, *self.owner.erased.values()]
        patience_s = self.scale.patience_s
        wait_until(
            lambda: not files_with(root, *secrets), patience_s, lambda: f"nothing in {files_with(root, *secrets)}", 1.0
        )

    def _verified(self) -> None:
        command = [str(Path(sys.executable).with_name("likeness")), "audit", "verify", str(self.platform.data.root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _templates(self, image: bytes) -> list[bytes]:
        """Under either model."""
        address = f"{HOST}:{self.candidate_ports.grpc}"
        found = []
        with (
            self.platform.channel("embed", "ingest") as old,
            ready_channel(address, self.platform.tls("ingest"), "embed") as new,
        ):
            for channel in (old, new):
                [face] = EmbedClient(channel).analyse(image, embed_pb2.AnalyseRequest.LARGEST).faces
                assert face.template is not None
                found.append(face.template.vector.astype("<f4").tobytes())
        return found

    # --- doors

    def _client(self, role: str, person_id: str = "", service: str = "ingest") -> httpx.Client:
        token = self.platform.token(role, person_id=person_id, lifetime=timedelta(hours=24))
        headers = {"Authorization": f"Bearer {token}"}
        # A deep reconciliation reads 500 images a second and answers at its end.
        timeout_s = 300 + (self.scale.at_start + 12 * self.scale.a_month) / 100
        return httpx.Client(base_url=self.platform.url(service), headers=headers, timeout=timeout_s, trust_env=False)

    def _act(self, client: httpx.Client, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = client.post(f"/v1/model-migrations{path}", json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=int, default=1000, help="images at the start")
    parser.add_argument("--a-month", type=int, default=120, help="new images a month")
    parser.add_argument("--synthetic", type=int, default=0, help="references without an image at the start")
    parser.add_argument("--synthetic-a-month", type=int, default=0, help="new ones of these a month")
    parser.add_argument(
        "--pixels", type=int, default=160, help="side of a picture, 80 or more: smaller ones are quicker"
    )
    options = parser.parse_args()
    # Some hundred images a second would be quick; a tenth of that is still not a hang.
    drawn = options.synthetic + 12 * options.synthetic_a_month
    patience_s = 120 + (options.start + 12 * options.a_month) / 20 + drawn / 200
    scale = Scale(
        options.start, options.a_month, options.synthetic, options.synthetic_a_month, patience_s, options.pixels
    )
    with tempfile.TemporaryDirectory(prefix="likeness-year-") as folder:
        year = Year.on(Path(folder) / "data", Path(folder), scale)
        with year.platform:
            print(json.dumps(year.run(), indent=1))


if __name__ == "__main__":
    main()
