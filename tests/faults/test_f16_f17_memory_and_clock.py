"""F16: embed's worker is killed by the kernel for want of memory. F17: the clock of a running ingest is set.

Real processes on the embedded adapters. The memory limit is a control group's, as a container's is; the clock is set
beneath the service by tests/support/set_clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import pytest

from tests.support.exporting import exported_log
from tests.support.fault_ledger import ClientLedger, Load, judge
from tests.support.fault_report import record
from tests.support.memory_limit import memory_group
from tests.support.noise import picture
from tests.support.platform import Platform
from tests.support.repository import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

WAIT_S = 240.0
# What embed and its workers may have more than they had: pictures of the usual size are far below, the bomb far above.
LIMIT = 320 * 1024**2
SETTINGS = {
    "LIKENESS_EMBED__MODEL__KIND": "stub",
    "LIKENESS_EMBED__GATE__WORKERS": "2",
    "LIKENESS_EMBED__INFERENCE__WORKERS": "1",
    # The kernel's verdict is waited for, not that of the gate's own clocks, which a busy machine may let run out first.
    "LIKENESS_EMBED__GATE__CPU_S": "120",
    "LIKENESS_EMBED__GATE__WALL_S": "120",
    "LIKENESS_EMBED__INFERENCE__JOB_TIMEOUT_S": "120",
}


@dataclass
class Scene:
    platform: Platform
    ledger: ClientLedger
    offset: Path

    def set_clock(self, seconds: int) -> None:
        draft = self.offset.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self.offset)

    def client(self, role: str, lifetime: timedelta) -> httpx.Client:
        token = self.platform.token(role, lifetime=lifetime)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.platform.url("ingest"), headers=headers, timeout=120, trust_env=False)


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    root = tmp_path_factory.mktemp("f16-f17")
    # Certificates of a day would end with the clock that is set; they have tests of their own.
    with Platform(root / "data", settings=SETTINGS, mutual_tls=False) as platform:
        yield Scene(platform, ClientLedger(platform), root / "offset")


def served(act: Callable[[], httpx.Response]) -> httpx.Response:
    """The first answer that is none of "try later", which a busy machine may give at any time."""
    answers: list[httpx.Response] = []

    def is_served() -> bool:
        answers.append(act())
        return answers[-1].status_code not in {429, 503}

    wait_until(is_served, WAIT_S, lambda: f"an answer: {answers[-1].text}", 0.5)
    assert answers[-1].status_code in {200, 202}, answers[-1].text
    return answers[-1]


def bomb() -> bytes:
    """49 megapixels of 16 bits and four channels, all of them black: 300 kB that want 800 MB."""
    whole, encoded = cv2.imencode(".png", np.zeros((7000, 7000, 4), np.uint16))
    assert whole
    return encoded.tobytes()


def test_f16_a_worker_that_the_kernel_kills_dies_alone(on: Scene) -> None:
    embed = psutil.Process(on.platform.process("embed").pid)
    with memory_group("likeness-f16", LIMIT) as group:
        group.add([embed, *embed.children(recursive=True)])
        with on.platform.client("ingest", "custodian") as custodian:
            content = bomb()
            wanted = served(lambda: on.ledger.try_once(custodian, content, "F16-bomb"))
        began = time.monotonic()
        beside = [(f"F16-{number}", picture(f"F16-{number}")) for number in range(10)]
        Load(on.ledger, beside).finish()
        tally = judge(on.ledger)
        recovery_s = time.monotonic() - began
        assert group.kills() >= 2, "the kernel killed nobody"
        with on.platform.client("ingest", "custodian") as custodian:
            told = custodian.get(f"/v1/enrolments/{wanted.json()['enrolment_id']}").json()
        assert (told["state"], told["reason"]) == ("quarantined", "crashes_analysis")
        assert (tally.enrolled, tally.quarantined) == (len(beside), 1)
        assert embed.is_running(), "embed itself went too"
        record("F16", "a bomb in embed under a memory limit: killed by the kernel", "embedded", tally=tally,
               times=group.kills(), recovery_s=recovery_s)  # fmt: skip


@pytest.fixture
def faked(on: Scene) -> Iterator[Scene]:
    """ingest under a clock that can be set while it runs."""
    on.set_clock(0)
    on.platform.restart(
        "ingest",
        PYTHONPATH=str(ROOT / "tests" / "support" / "set_clock"),
        LIKENESS_TEST_CLOCK=str(on.offset),
        LIKENESS_INGEST__TOKENS__LEEWAY_S="30",
    )
    yield on
    on.set_clock(0)
    on.platform.restart("ingest")


def test_f17_the_clock_is_set_while_ingest_runs(faked: Scene) -> None:
    on = faked
    with (
        on.client("custodian", timedelta(days=3)) as custodian,
        on.client("custodian", timedelta(minutes=5)) as short,
        on.client("administrator", timedelta(days=3)) as administrator,
    ):

        def enrol(subject: str) -> str:
            answer = served(lambda: on.ledger.try_once(custodian, picture(subject), subject))
            return str(answer.json()["enrolment_id"])

        on.set_clock(0)
        ids = [enrol("F17-now")]
        on.set_clock(3600)
        assert short.get("/v1/enrolments").status_code == 401, "it expired by this clock"
        ids.append(enrol("F17-an-hour-on"))
        on.set_clock(-3600)
        assert custodian.get("/v1/enrolments").status_code == 401, "not valid yet by this clock"
        on.set_clock(-20)  # within the leeway that a token may be given
        ids.append(enrol("F17-twenty-seconds-back"))
        on.set_clock(0)
        ids.append(enrol("F17-now-again"))
        judge(on.ledger)
        _in_their_order(on.platform, ids)

        # A day has to pass before this is erased; the clock says that it has.
        assert administrator.post("/v1/clock/confirmation").json() == {"is_trusted": True}
        order = {"subject_id": "F17-now", "reason": "acquitted", "authority": "request 1", "quarantine_days": 1}
        asked = served(lambda: custodian.post("/v1/erasures", json=order))

        def state() -> str:
            return str(served(lambda: custodian.get(f"/v1/erasures/{asked.json()['erasure_id']}")).json()["state"])

        wait_until(lambda: state() == "quarantined", WAIT_S, lambda: f"it to be quarantined, it is {state()}", 0.5)
        on.set_clock(25 * 3600)
        wait_until(
            lambda: not administrator.get("/v1/clock").json()["is_trusted"], WAIT_S, "the clock to be distrusted", 0.5
        )
        time.sleep(3)  # the loop that erases looks every second
        assert state() == "quarantined", "erased by a clock that nobody confirmed"
        # And that it was the clock alone that held it up:
        assert administrator.post("/v1/clock/confirmation").json() == {"is_trusted": True}
        wait_until(lambda: state() == "erased", WAIT_S, lambda: f"it to be erased, it is {state()}", 0.5)
    record("F17", "the clock of ingest set by +1 h, -1 h, -20 s and +25 h", "embedded", times=4)


def _in_their_order(platform: Platform, ids: list[str]) -> None:
    """Entries stand as they were appended, whatever their writer's clock said; those that are off are found."""
    lines = [json.loads(line) for line in exported_log(platform, "the clock was set").splitlines()]
    entries: list[dict[str, Any]] = [line["entry"] for line in lines if line.get("entry")]
    # What is written before the request is answered: by the clock of that moment.
    begun = {each["activity_id"]: each for each in entries if each["phase"].endswith("INTENT")}
    first, ahead, _, last = (begun[each] for each in ids)
    assert [each["sequence"] for each in entries] == sorted(each["sequence"] for each in entries)
    assert [each["recorded_at"] for each in entries] == sorted(each["recorded_at"] for each in entries)
    assert first["sequence"] < ahead["sequence"] < last["sequence"]
    assert ahead["occurred_at"] > last["occurred_at"]
