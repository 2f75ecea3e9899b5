"""What stands in the attacked platform, and how requests to it are made."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

from services.local.issuer import DEVELOPMENT_FORCE
from tests.support.casework import post_enrolment, post_search, wait_settled
from tests.support.platform import Platform

# The stub model recognises nobody but is quick; one gate worker and one of inference are enough.
SETTINGS: Mapping[str, str] = {
    "LIKENESS_EMBED__MODEL__KIND": "stub",
    "LIKENESS_EMBED__GATE__WORKERS": "1",
    # How fast one may ask is not what is attacked here.
    **{
        f"LIKENESS_{limits}__{limit}": "0"
        for limits in (
            "SEARCH__RATE_LIMITS",
            "SEARCH__SEARCH_RATE_LIMITS",
            "INGEST__RATE_LIMITS",
            "AUDIT__RATE_LIMITS",
            "REVIEW__RATE_LIMITS",
        )
        for limit in ("PERSON_PER_MINUTE", "FORCE_PER_MINUTE")
    },
}
OTHER_FORCE = "eastmoor"
REQUEST: Mapping[str, Any] = {
    "case_reference": "NC/2026/0099",
    "offence": "burglary",
    "purpose": "prevention_and_detection",
    "necessity": "The only lead.",
    "case_type": "suspect",
    "urgency": "routine",
    "source": "cctv",
    "nature": "photograph",
    "face_chosen_by": "test-requester",
    "watchlists": ["custody"],
}


def picture(seed: int, size: int = 256) -> bytes:
    """A picture that nobody else has, in PNG. The stub model sees one face in the middle of any picture."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def open_client(platform: Platform, service: str, **headers: str) -> httpx.Client:
    """A client without a token."""
    return httpx.Client(base_url=platform.url(service), headers=headers, timeout=60, trust_env=False)


def as_bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def assert_tells_nothing(answer: httpx.Response, *secrets: str) -> None:
    """A refusal names neither the object nor the reason why the token did not do."""
    text = answer.text.lower()
    for secret in (*secrets, "traceback", "sqlite", "expired", "signature", "kid", "revoked"):
        assert secret.lower() not in text, (secret, answer.text)


@dataclass(frozen=True)
class Scene:
    """Ids of what the development force has, by kind: `ids` of what all with the role may see, `kept` of what is some
    people's alone."""

    platform: Platform
    ids: Mapping[str, str]
    kept: Mapping[str, str]

    @classmethod
    def make(cls, platform: Platform) -> Scene:
        with platform.client("ingest", "custodian", timeout_s=60) as custodian:
            answer = post_enrolment(custodian, picture(1), "ATTACKED-1")
            assert answer.status_code in {200, 202}, answer.text
            enrolment_id: str = answer.json()["enrolment_id"]
            assert wait_settled(custodian, [enrolment_id])[enrolment_id] == "enrolled"
        with platform.client("search", "operator", timeout_s=60) as operator:
            found = post_search(operator, picture(2))
            assert found.status_code == 200, found.text
        with platform.client("review", "requester", timeout_s=60) as officer:
            sent = officer.post("/v1/requests", data=REQUEST, files={"images": ("p.png", picture(3), "image/png")})
            assert sent.status_code == 201, sent.text
        ids = {"enrolment": enrolment_id, "search": found.json()["search_id"], "entry": "0"}
        return cls(platform, ids, {"request": sent.json()["request_id"]})

    def token(self, role: str, force: str = DEVELOPMENT_FORCE, watchlists: Sequence[str] | None = None) -> str:
        return self.platform.token(role, force=force, watchlists=watchlists, person_id=f"attacker-{role}-{force}")

    def audit_entries(self, **filters: Any) -> list[dict[str, Any]]:
        """Entries of the log, newest first."""
        with self.platform.client("audit", "auditor", timeout_s=60) as auditor:
            answer = auditor.get("/v1/audit/entries", params={"limit": 1000, **filters})
            assert answer.status_code == 200, answer.text
            return [each["entry"] for each in answer.json()["entries"]]
