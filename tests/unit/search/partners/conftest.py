"""Two sides with real keys and certificates, in this process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from services.search.partners.config import Partner, PartnerFile, Partners
from services.search.partners.tokens import Question
from services.shared.clock import SystemClock
from services.shared.ids import new_id
from services.shared.watchlists import CaseType
from tests.support.partners import Side, introduce, make_side

PICTURE = b"a picture"
PICTURE_SHA256 = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def north(tmp_path: Path) -> Side:
    return make_side(tmp_path / "north", "northshire")


@pytest.fixture
def east(tmp_path: Path) -> Side:
    return make_side(tmp_path / "east", "eastmoor")


@pytest.fixture
def asking(north: Side, east: Side) -> tuple[Partners, Partner]:
    """Northshire's view of its partner; time enough for a machine that is busy."""
    introduce(north, east, timeout_s=20.0)
    introduce(east, north, timeout_s=20.0)
    return view(north)


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


def view(side: Side) -> tuple[Partners, Partner]:
    """What the side's file says of its partner."""
    partners = PartnerFile(side.file).current()
    return partners, partners.all[0]


def question(**changes: Any) -> Question:
    asked: dict[str, Any] = {
        "exchange_id": new_id(),
        "home_search_id": new_id(),
        "person": "op-7",
        "force": "northshire",
        "roles": ("operator",),
        "trained_until": None,
        "case_reference": "NC/2026/1",
        "purpose": "prevention_and_detection",
        "offence": "burglary",
        "authority": "OPL s.4, DI 1234",
        "source": "cctv",
        "case_type": CaseType.SUSPECT,
        "watchlists": ("op_liberal",),
        "mode": "investigation",
        "max_candidates": 5,
        "picture_sha256": PICTURE_SHA256,
    }
    return Question.model_validate({**asked, **changes})


def home_document(**changes: Any) -> dict[str, Any]:
    """What `Identify` answers, as far as a partner is told of it."""
    document: dict[str, Any] = {
        "search_id": new_id(),
        "searched_at": "2026-11-22T22:53:25.610Z",
        "request": {"mode": "investigation"},
        "model": {
            "model_id": "m1",
            "detector_sha256": "d" * 64,
            "recogniser_sha256": "e" * 64,
            "preprocessing_version": "p1",
            "runtime": "not told",
        },
        "threshold": {"by_watchlist": []},
        "policy": {"digest": "a" * 64, "watchlists": "b" * 64},
        "searched": [{"watchlist": "op_liberal", "owners": ["eastmoor"], "agreements": ["OPL-2026-EASTMOOR"]}],
        "searchable": 3,
        "gallery_snapshot": {"snapshot_id": "3" * 64},
        "candidates": [
            {
                "rank": 1,
                "subject_id": "EM-1",
                "reference_id": new_id(),
                "watchlist": "op_liberal",
                "owner": "eastmoor",
                "score": 0.71,
            }
        ],
        "statements": ["FOR INTELLIGENCE PURPOSES ONLY."],
        "faces": ["not told"],
        "probe": {"sha256": "not told"},
    }
    return {**document, **changes}
