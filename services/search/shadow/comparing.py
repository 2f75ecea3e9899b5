"""How two candidate lists of one probe differ, in counts. Lists are compared by who is on them and where: a score of
one model is never compared with a score of the other. Pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from services.search.ports import Candidate

DEPTHS = (1, 5, 10, 20)
_BIN = 0.05
_BEYOND = "beyond"
# Where the first of the served list stands on the other one.
_BANDS = ((1, "1"), (5, "2-5"), (10, "6-10"), (20, "11-20"))
_Z95 = 1.959963984540054


def compare(
    served: Sequence[Candidate], other: Sequence[Candidate], served_model_id: str, other_model_id: str
) -> Counter[str]:
    """The counts that one repeated search adds to the report."""
    counts: Counter[str] = Counter(searches=1)
    ours, theirs = [_who(each) for each in served], [_who(each) for each in other]
    for depth in DEPTHS:
        first, second = ours[:depth], theirs[:depth]
        counts[f"overlap/{depth}/shared"] += len(set(first) & set(second))
        counts[f"overlap/{depth}/listed"] += max(len(first), len(second))
    counts["identical_lists"] += ours == theirs
    if ours:
        counts["with_candidates"] += 1
        counts["rank_1_same"] += theirs[:1] == ours[:1]
        counts[f"rank_1_now/{_band(ours[0], theirs)}"] += 1
    counts.update(_scores(served_model_id, served))
    counts.update(_scores(other_model_id, other))
    return counts


def document(counts: Mapping[str, int]) -> dict[str, Any]:
    """One direction of the report, shares with their 95 % intervals (Wilson)."""
    with_candidates = counts.get("with_candidates", 0)
    return {
        "searches": counts.get("searches", 0),
        "not_comparable": _under(counts, "not_comparable/"),
        "failed": _under(counts, "failed/"),
        "dropped": counts.get("dropped", 0),
        "rank_1_same": _share(counts.get("rank_1_same", 0), with_candidates),
        "rank_1_of_served_stands_at": {
            name: counts.get(f"rank_1_now/{name}", 0) for name in (*(name for _, name in _BANDS), _BEYOND)
        },
        "identical_lists": _share(counts.get("identical_lists", 0), counts.get("searches", 0)),
        "overlap": {
            str(depth): _ratio(counts.get(f"overlap/{depth}/shared", 0), counts.get(f"overlap/{depth}/listed", 0))
            for depth in DEPTHS
        },
        "scores": _histograms(counts),
    }


def _who(candidate: Candidate) -> tuple[str, str]:
    return candidate.owner, candidate.subject_id


def _band(who: tuple[str, str], listed: Sequence[tuple[str, str]]) -> str:
    if who not in listed:
        return _BEYOND
    rank = listed.index(who) + 1
    return next((name for last, name in _BANDS if rank <= last), _BEYOND)


def _scores(model_id: str, candidates: Sequence[Candidate]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for candidate in candidates:
        place = "rank_1" if candidate.rank == 1 else "others"
        counts[f"score/{model_id}\t{place}\t{_lower_edge(candidate.score):+.2f}"] += 1
    return counts


def _lower_edge(score: float) -> float:
    return math.floor(round(score / _BIN, 6)) * _BIN


def _histograms(counts: Mapping[str, int]) -> dict[str, dict[str, dict[str, int]]]:
    """By model, by place on the list: how many scores from each lower edge on, in steps of 0.05."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, count in counts.items():
        if name.startswith("score/"):
            model_id, place, edge = name.removeprefix("score/").split("\t")
            found.setdefault(model_id, {}).setdefault(place, {})[edge] = count
    return {
        model_id: {
            place: dict(sorted(edges.items(), key=lambda each: float(each[0])))
            for place, edges in sorted(places.items())
        }
        for model_id, places in sorted(found.items())
    }


def _under(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in sorted(counts.items()) if name.startswith(prefix)}


def _ratio(shared: int, listed: int) -> float | None:
    return round(shared / listed, 4) if listed else None


def _share(count: int, of: int) -> dict[str, Any]:
    if not of:
        return {"count": count, "of": of, "share": None, "interval_95": None}
    share, square = count / of, _Z95 * _Z95
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z95 / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    interval = [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)]
    return {"count": count, "of": of, "share": round(share, 4), "interval_95": interval}
