"""Lists of several platforms beside each other. Pure.

A score means something within one model alone, and a threshold within one operating point. So lists are put into one
order only where both are equal, network for network and threshold for threshold; all others stand side by side, each
ranked by itself. No score is rescaled to make it fit, and two candidates of two platforms are never made one: that an
owner's identifier stands in two galleries is for a person to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SourceList:
    """One platform's list: `comparable` is equal for lists whose scores may stand in one order."""

    source: str
    model_id: str
    mode: str
    thresholds: tuple[tuple[str, float, str], ...]
    comparable: tuple[Any, ...]
    candidates: Sequence[Json]


def source_list(
    source: str, model: Json, mode: str, thresholds: Iterable[Json], candidates: Sequence[Json]
) -> SourceList:
    """`model` has the fields of PartnerModel, `thresholds` those of PartnerThreshold."""
    points = tuple(sorted((str(one["watchlist"]), float(one["value"]), str(one["version"])) for one in thresholds))
    networks = tuple(
        str(model[name]) for name in ("model_id", "detector_sha256", "recogniser_sha256", "preprocessing_version")
    )
    # By watchlist: a platform that has one watchlist fewer has no other operating point for those that both have, but
    # which candidates stand on the list depends on it, so such lists stay apart too.
    return SourceList(source, networks[0], mode, points, (*networks, mode, points), tuple(candidates))


def merge(lists: Sequence[SourceList]) -> list[dict[str, Any]]:
    """One entry for each group of comparable lists, in the order of their first source.

    `rank` is the place in the group's order, `source_rank` that in the platform's own list. Of equal scores the source
    that was named first comes first.
    """
    groups: dict[tuple[Any, ...], list[SourceList]] = {}
    for one in lists:
        groups.setdefault(one.comparable, []).append(one)
    return [_group(members) for members in groups.values()]


def _group(members: Sequence[SourceList]) -> dict[str, Any]:
    first = members[0]
    places = {member.source: place for place, member in enumerate(members)}
    entries = [(member.source, candidate) for member in members for candidate in member.candidates]
    entries.sort(key=lambda entry: (-entry[1]["score"], places[entry[0]], entry[1]["rank"]))
    return {
        "sources": list(places),
        "is_merged": len(members) > 1,
        "model_id": first.model_id,
        "mode": first.mode,
        "thresholds": [
            {"watchlist": watchlist, "value": value, "version": version}
            for watchlist, value, version in first.thresholds
        ],
        "candidates": [
            {**candidate, "rank": rank, "source": source, "source_rank": candidate["rank"]}
            for rank, (source, candidate) in enumerate(entries, start=1)
        ],
    }
