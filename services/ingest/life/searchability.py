"""How many images cannot be searched, by device and month, and what to change at the camera."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

ENROLLED = "enrolled"
# What to change where images are refused for this reason.
ADVICE = {
    "no_face_found": "Frame head and shoulders, upright, nothing before the face.",
    "several_faces": "Have one person in the picture; take posters with faces off the wall behind.",
    "quality_too_low": "Even light from the front, no movement, focus on the eyes; at least 90 px between them.",
    "low_quality": "Even light from the front, no movement, focus on the eyes; at least 90 px between them.",
    "image_undecodable": "See that the camera's export is complete; files arrive broken.",
    "image_format_not_allowed": "Export JPEG or PNG.",
    "image_too_many_pixels": "Export at 50 megapixels at most.",
}


@dataclass(frozen=True, slots=True)
class Tally:
    """Images of one device, month, state and reason, and their mean quality where it was measured."""

    device: str
    month: str
    state: str
    reason: str
    count: int
    mean_quality: float | None


@dataclass(frozen=True, slots=True)
class Searchability:
    """Of one device in one month. `device` is empty where the owner does not say. Withdrawn images are not counted."""

    device: str
    month: str
    images: int
    searchable: int
    with_warning: int
    reasons: dict[str, int]
    mean_quality: float | None
    advice: tuple[str, ...]


class SearchabilitySource(Protocol):
    """Counts in the ledger. Raises DependencyUnavailable."""

    def tallies(
        self, owner: str, watchlist_ids: frozenset[str], first_month: str, last_month: str
    ) -> Sequence[Tally]: ...


def searchability(tallies: Sequence[Tally]) -> list[Searchability]:
    """By month and device, the worst device of a month first."""
    groups: dict[tuple[str, str], list[Tally]] = defaultdict(list)
    for tally in tallies:
        if tally.state != "withdrawn":
            groups[tally.device, tally.month].append(tally)
    found = [_searchability(device, month, members) for (device, month), members in groups.items()]
    return sorted(found, key=lambda each: (each.month, each.searchable / each.images, each.device))


def _searchability(device: str, month: str, members: Sequence[Tally]) -> Searchability:
    reasons: dict[str, int] = defaultdict(int)
    for tally in members:
        if tally.reason:
            reasons[tally.reason] += tally.count
    measured = [(tally.count, tally.mean_quality) for tally in members if tally.mean_quality is not None]
    weight = sum(count for count, _ in measured)
    worst_first = sorted(reasons, key=lambda reason: -reasons[reason])
    return Searchability(
        device=device,
        month=month,
        images=sum(tally.count for tally in members),
        searchable=sum(tally.count for tally in members if tally.state == ENROLLED),
        with_warning=sum(tally.count for tally in members if tally.state == ENROLLED and tally.reason),
        reasons=dict(reasons),
        mean_quality=sum(count * quality for count, quality in measured) / weight if weight else None,
        advice=tuple(dict.fromkeys(ADVICE[reason] for reason in worst_first if reason in ADVICE)),
    )
