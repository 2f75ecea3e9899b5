"""How `likeness identify` prints an answer."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from services.search.cli import print_search


def _candidate(rank: int, says: str) -> dict[str, Any]:
    names = {name: f"{name} [b]{rank}[/b]" for name in ("subject_id", "watchlist", "owner", "reference_id")}
    return {"rank": rank, "score": 0.9 - rank / 10, "score_evidence": {"says": says}, **names}


def printed(*candidates: dict[str, Any]) -> str:
    stream = io.StringIO()
    answer = {
        "search_id": "s-1",
        "face": 0,
        "faces": [{"inter_eye_px": 60.4, "quality": {"unified": 71.2}}],
        "probe": {"flags": [{"detail": "It is a [i]copy[/i]."}]},
        "candidates": list(candidates),
        "threshold": {"why": "None is set."},
        "timings_ms": {"gate": 5.12, "total": 44.0},
        "statements": ["For intelligence."],
    }
    print_search(Console(file=stream, width=200, highlight=False), answer)
    return stream.getvalue()


def test_what_is_known_of_several_scores_is_said_once() -> None:
    lines = printed(_candidate(1, "No evidence."), _candidate(2, "FPIR 0.01."), _candidate(3, "No evidence.")).split(
        "\n"
    )
    assert [line for line in lines if line.startswith("rank")] == ["ranks 1, 3: No evidence.", "rank 2: FPIR 0.01."]


def test_what_was_enrolled_or_answered_is_no_markup() -> None:
    text = printed(_candidate(1, "No evidence."))
    assert "subject_id [b]1[/b]" in text
    assert "needs a supervisor: It is a [i]copy[/i]." in text
    assert "gate 5.1 ms  total 44.0 ms" in text


def test_no_candidate_is_said() -> None:
    assert "No candidate." in printed()
