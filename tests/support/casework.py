"""Enrolling and searching as a force's systems do: the public REST API, fields as the documentation has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from tests.support.platform import Platform
from tests.support.waiting import wait_until

LAWFUL_BASIS = {"custody": "pace_1984_s64a", "sex_offenders": "soa_2003_part2", "op_liberal": "pace_1984_s64a"}
SETTLED = {"enrolled", "refused", "quarantined"}
_LOOKUP_IDS = 1000


def post_enrolment(
    client: httpx.Client,
    image: bytes,
    subject_id: str,
    watchlist: str = "custody",
    owner: str = "northshire",
    *,
    captured_on: str = "2026-03-01",
) -> httpx.Response:
    """One enrolment request."""
    fields = {
        "watchlist": watchlist,
        "owner": owner,
        "subject_id": subject_id,
        "lawful_basis": LAWFUL_BASIS[watchlist],
        "captured_on": captured_on,
    }
    return client.post("/v1/enrolments", data=fields, files={"image": ("image", image)})


def post_search(
    client: httpx.Client, image: bytes, watchlists: Iterable[str] = ("custody",), **fields: Any
) -> httpx.Response:
    """One search request; `fields` replace or add form fields."""
    form: dict[str, Any] = {
        "case_reference": "NC/2026/0042",
        "purpose": "prevention_and_detection",
        "offence": "burglary",
        "source": "cctv",
        "watchlists": list(watchlists),
        **fields,
    }
    return client.post("/v1/searches", data=form, files={"image": ("probe", image)})


def post_request(client: httpx.Client, image: bytes) -> httpx.Response:
    """An officer's request for a search, complete but perhaps for its picture."""
    form: dict[str, Any] = {
        "case_reference": "NC/2026/0042",
        "offence": "burglary",
        "purpose": "prevention_and_detection",
        "necessity": "The only line of enquiry that is left.",
        "case_type": "suspect",
        "urgency": "urgent",
        "source": "cctv",
        "nature": "video_frame",
        "face_chosen_by": "PC 1234 from the shop's camera",
        "watchlists": ["custody"],
    }
    return client.post("/v1/requests", data=form, files=[("images", ("probe", image))])


def states(client: httpx.Client, enrolment_ids: Iterable[str]) -> dict[str, str]:
    """The state of each enrolment, by id."""
    ids = list(enrolment_ids)
    found: dict[str, str] = {}
    for start in range(0, len(ids), _LOOKUP_IDS):
        answer = client.post("/v1/enrolments/lookup", json={"enrolment_ids": ids[start : start + _LOOKUP_IDS]})
        answer.raise_for_status()
        found.update({entry["enrolment_id"]: entry["state"] for entry in answer.json()["enrolments"]})
    return found


def wait_settled(client: httpx.Client, enrolment_ids: Iterable[str], timeout_s: float = 180.0) -> dict[str, str]:
    """Wait until every enrolment has an outcome; the outcomes by id."""
    ids = list(enrolment_ids)
    found: dict[str, str] = {}

    def all_settled() -> bool:
        found.update(states(client, ids))
        return set(ids) <= {enrolment_id for enrolment_id, state in found.items() if state in SETTLED}

    wait_until(all_settled, timeout_s, lambda: f"outcomes of {len(ids)} enrolments, have {sorted(found.values())[:5]}")
    return found


def enrol(platform: Platform, image: Path, subject_id: str, watchlist: str = "custody") -> str:
    """Enrol one picture and wait; its enrolment_id. Fails when it is not enrolled."""
    with platform.client("ingest", "custodian") as client:
        answer = post_enrolment(client, image.read_bytes(), subject_id, watchlist)
        assert answer.status_code in {200, 202}, answer.text
        enrolment_id: str = answer.json()["enrolment_id"]
        outcome = wait_settled(client, [enrolment_id])[enrolment_id]
        assert outcome == "enrolled", client.get(f"/v1/enrolments/{enrolment_id}").text
    return enrolment_id
