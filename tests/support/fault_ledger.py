"""The clients' own ledger of what they were told, and the judge who holds the platform to it once a fault is over."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import httpx

from services.rpc.clients import GalleryClient, GalleryUpkeepClient, LedgerClient
from tests.support.casework import SETTLED, post_enrolment, states
from tests.support.exporting import exported_log
from tests.support.fault_report import Tally
from tests.support.platform import Platform
from tests.support.waiting import wait_until

SETTLE_S = 240.0  # a minute is promised; a machine that does other work has four
PATIENCE_S = 240.0
_TRY_LATER = frozenset({429, 503})
_CLIENTS = 4
_JUDGED = frozenset({"enrolment", "search"})


@dataclass
class ClientLedger:
    """Enrols and notes every acknowledgement: subject -> all enrolment ids that were ever told for it."""

    platform: Platform
    told: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    turned_away: Counter[int] = field(default_factory=Counter)
    withdrawn: set[str] = field(default_factory=set)  # subjects that were taken back since
    _lock: Lock = field(default_factory=Lock)

    def note(self, subject_id: str, enrolment_id: str) -> None:
        with self._lock:
            self.told[subject_id].add(enrolment_id)

    @property
    def ids(self) -> set[str]:
        with self._lock:
            return {one for ids in self.told.values() for one in ids}

    def try_once(self, client: httpx.Client, image: bytes, subject_id: str) -> httpx.Response:
        """One request. An acknowledgement is noted; any answer but that or "try later" is an error of the platform."""
        answer = post_enrolment(client, image, subject_id)
        if answer.status_code in {200, 202}:
            self.note(subject_id, answer.json()["enrolment_id"])
        else:
            assert answer.status_code in _TRY_LATER, f"{subject_id}: {answer.status_code} {answer.text}"
            with self._lock:
                self.turned_away[answer.status_code] += 1
        return answer

    def enrol(self, image: bytes, subject_id: str) -> None:
        """The same request again until it is acknowledged, whatever happens to the services meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        with self.platform.client("ingest", "custodian") as client:
            while subject_id not in self.told:
                assert time.monotonic() < deadline, f"{subject_id} was never acknowledged"
                try:
                    if self.try_once(client, image, subject_id).status_code in _TRY_LATER:
                        time.sleep(0.1)
                except httpx.TransportError:
                    time.sleep(0.1)


class Load:
    """Enrolments in the background. `finish` waits until every one has been acknowledged."""

    def __init__(self, ledger: ClientLedger, images: Sequence[tuple[str, bytes]]) -> None:
        self._pool = ThreadPoolExecutor(_CLIENTS)
        self._waiting: list[Future[None]] = [self._pool.submit(ledger.enrol, image, name) for name, image in images]

    @property
    def acknowledged(self) -> int:
        return sum(future.done() for future in self._waiting)

    def reach(self, count: int) -> None:
        """Wait until so many have been acknowledged."""
        wait_until(lambda: self.acknowledged >= count, PATIENCE_S, f"{count} acknowledgements")

    def finish(self) -> None:
        for future in self._waiting:
            future.result(timeout=PATIENCE_S)
        self._pool.shutdown()


def judge(ledger: ClientLedger, within_s: float = SETTLE_S) -> Tally:
    """Hold the platform to what its clients were told. Every enrolment of the platform must be in the client's ledger.

    1. one id a subject, no id for two subjects;
    2. each id has one of the three outcomes in time (those taken back are withdrawn), and the platform counts the same;
    3. the gallery holds exactly the references of the record, each once;
    4. each enrolment has exactly one terminal entry in the audit log, each intent has its end, and the log verifies.
    """
    told = {subject: sorted(ids) for subject, ids in ledger.told.items()}
    assert [ids for ids in told.values() if len(ids) > 1] == [], "two ids for one image"
    assert len(ledger.ids) == len(told), "one id for two images"
    outcomes = _outcomes(ledger, within_s)
    count = Counter(outcomes.values())
    tally = Tally(len(told), count["enrolled"], count["refused"], count["quarantined"], count["withdrawn"])
    assert tally.accepted == tally.enrolled + tally.refused + tally.quarantined + tally.withdrawn
    _same_counts(ledger.platform, tally, within_s)
    _same_references(ledger.platform, tally.enrolled, within_s)
    _each_intent_ended(ledger.platform, ledger.ids, within_s)
    return tally


def _outcomes(ledger: ClientLedger, within_s: float) -> dict[str, str]:
    """The outcome of each id; of a subject that was taken back only "withdrawn" is one."""
    taken_back = {one for subject in ledger.withdrawn for one in ledger.told.get(subject, ())}
    found: dict[str, str] = {}

    def all_settled() -> bool:
        found.update(states(client, ledger.ids))
        return all(
            found.get(one) == "withdrawn" if one in taken_back else found.get(one) in SETTLED for one in ledger.ids
        )

    with ledger.platform.client("ingest", "custodian") as client:
        wait_until(all_settled, within_s, lambda: f"outcomes of {len(ledger.ids)}: {Counter(found.values())}", 0.2)
    return found


def _same_counts(platform: Platform, tally: Tally, within_s: float) -> None:
    wanted = {"accepted": tally.accepted, "pending": 0, "enrolled": tally.enrolled}
    wanted |= {"refused": tally.refused, "quarantined": tally.quarantined, "withdrawn": tally.withdrawn}

    def counted() -> dict[str, int]:
        with platform.channel("ingest") as channel:
            watchlists = LedgerClient(channel).count().watchlists
        return {name: sum(int(getattr(each, name)) for each in watchlists) for name in wanted}

    wait_until(lambda: counted() == wanted, within_s, lambda: f"the ledger to count {wanted}; it counts {counted()}")


def _same_references(platform: Platform, enrolled: int, within_s: float) -> None:
    def held() -> Counter[str]:
        with platform.channel("search", "ingest") as channel:
            batches = GalleryUpkeepClient(channel).list_references()
            return Counter(one for batch in batches for one in batch.reference_ids)

    with platform.channel("search", "ingest") as search, platform.channel("ingest", "search") as channel:
        model_id = GalleryClient(search).describe().model_id
        record = Counter(i for batch in LedgerClient(channel).read_references(model_id) for i in batch.reference_ids)
    assert len(record) == enrolled
    assert set(record.values()) <= {1}
    wait_until(
        lambda: held() == record, within_s, lambda: f"{enrolled} references in the gallery; it has {held().total()}"
    )


def _each_intent_ended(platform: Platform, ids: Iterable[str], within_s: float) -> None:
    wanted = set(ids)
    trouble = "not looked yet"

    def all_ended() -> bool:
        nonlocal trouble
        phases = _phases(exported_log(platform, "a fault was survived"))
        open_ones = {
            one: seen for one, seen in phases.items() if sum(not each.endswith("INTENT") for each in seen) != 1
        }
        missing = wanted - phases.keys()
        trouble = (
            f"{len(open_ones)} without exactly one end, {len(missing)} not in the log: {list(open_ones.items())[:6]}"
        )
        return not open_ones and not missing

    wait_until(all_ended, within_s, lambda: trouble, interval_s=1.0)
    with tempfile.TemporaryDirectory(prefix="likeness-audit-") as folder:
        export = Path(folder) / "audit.jsonl"
        export.write_bytes(exported_log(platform, "a fault was survived"))
        _verify(export)


def _phases(export: bytes) -> dict[str, list[str]]:
    """What happened to every enrolment and search, in order."""
    phases: dict[str, list[str]] = defaultdict(list)
    for line in export.splitlines():
        entry = json.loads(line).get("entry")
        if entry and entry["activity"] in _JUDGED:
            phases[entry["activity_id"]].append(f"{entry['activity']} {entry['phase']}")
    return phases


def _verify(export: Path) -> None:
    """With the command that an auditor uses."""
    command = [sys.executable, "-m", "services.cli", "audit", "verify", str(export)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def until_served(call: Callable[[], httpx.Response], what: str, within_s: float = SETTLE_S) -> float:
    """Repeat a request until it is answered with success; the seconds that took."""
    began = time.monotonic()
    last = ""

    def is_served() -> bool:
        nonlocal last
        try:
            answer = call()
        except httpx.TransportError as error:
            last = type(error).__name__
            return False
        last = f"{answer.status_code} {answer.text[:300]}"
        return answer.is_success

    wait_until(is_served, within_s, lambda: f"{what}: {last}", interval_s=0.1)
    return time.monotonic() - began
