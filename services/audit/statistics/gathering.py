"""Reads the log, entry by entry, into searches and requests: what figures are made of, and no person in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

SEARCH_SERVICE, REVIEW_SERVICE = "search", "review"
# As reports of `likeness evaluate` cut unified quality, so that rates and error rates stand side by side.
QUALITY_EDGES = (30, 50, 70)
COARSE_EDGES = (50,)
NOT_MEASURED = "not measured"
# A released name that turned out to be another's.
FALSE_LEADS = frozenset({"wrong_person", "eliminated"})
NONE_NAMED = "none named"

SUBMIT, _SEARCH, _RELEASE, _OUTCOME = "submit_request", "search", "release", "record_outcome"
ENDINGS = {
    "return": "returned",
    "withdraw": "withdrawn",
    "call_unsuitable": "unsuitable",
    "refuse_probe": "unsuitable",
    "close_known_answer": "known answer",
}


@dataclass(slots=True)
class SearchFact:
    """One search. `ended`: "done", "refused", "failed", "unknown" or "" while it runs."""

    month: str
    force: str
    purpose: str
    offence: str = NONE_NAMED
    source: str = NONE_NAMED
    case_type: str = NONE_NAMED
    mode: str = NONE_NAMED
    watchlists: str = NONE_NAMED
    ended: str = ""
    refused_for: str = ""
    quality: float | None = None


@dataclass(slots=True)
class RequestFact:
    """One request. `ended`: "" while it is worked on, "released", "unsuitable", "returned", "withdrawn"."""

    month: str
    force: str
    purpose: str
    offence: str
    watchlists: str
    ended: str = ""
    has_name: bool = False
    outcome: str = ""
    is_planted: bool = False
    searches: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ThresholdFact:
    """A threshold in use: when it was first searched with, and how often."""

    watchlist: str
    stated: str
    first_seen: str
    searches: int = 0


class Gatherer:
    """Takes entries in the order of the log. What it does not know is passed over, so that the log may grow."""

    def __init__(self) -> None:
        self.searches: dict[str, SearchFact] = {}
        self.requests: dict[str, RequestFact] = {}
        self.thresholds: dict[tuple[str, str], ThresholdFact] = {}
        # By activity: what the intent said, until the outcome comes.
        self._begun: dict[str, Mapping[str, str]] = {}

    def take(self, entry: Mapping[str, Any]) -> None:
        service, activity = entry["service"], entry["activity"]
        if service == SEARCH_SERVICE and activity == _SEARCH:
            self._take_search(entry)
        elif service == REVIEW_SERVICE:
            self._take_casework(entry)

    def band(self, request: RequestFact, edges: Sequence[int] = QUALITY_EDGES) -> str:
        """The quality of the best probe that was searched for a request."""
        measured = [
            found.quality
            for name in request.searches
            if (found := self.searches.get(name)) is not None and found.quality is not None
        ]
        return quality_band(max(measured, default=None), edges)

    def _take_search(self, entry: Mapping[str, Any]) -> None:
        found = self.searches.get(entry["activity_id"])
        details, phase = entry["details"], entry["phase"]
        if found is None:
            found = SearchFact(_month(entry), entry["actor"]["force"], entry["purpose"] or NONE_NAMED)
            self.searches[entry["activity_id"]] = found
        if phase == "INTENT":
            for name in ("offence", "source", "case_type", "mode"):
                setattr(found, name, details.get(name, NONE_NAMED))
            found.watchlists = _watchlists(entry)
            return
        found.ended = phase.lower()
        found.refused_for = details.get("reason", "") if phase == "REFUSED" else ""
        if phase == "DONE":
            found.quality = float(details["quality"]) if "quality" in details else None
            self._take_thresholds(entry)

    def _take_thresholds(self, entry: Mapping[str, Any]) -> None:
        for name, stated in entry["details"].items():
            kind, _, watchlist = name.partition(":")
            if kind == "threshold":
                key = (watchlist, stated)
                fact = self.thresholds.setdefault(key, ThresholdFact(watchlist, stated, entry["recorded_at"]))
                fact.searches += 1

    def _take_casework(self, entry: Mapping[str, Any]) -> None:
        activity_id, phase = entry["activity_id"], entry["phase"]
        if phase == "INTENT":
            self._begun[activity_id] = entry["details"]
            return
        details = {**self._begun.pop(activity_id, {}), **entry["details"]}
        if phase != "DONE":
            return
        for request_id in _named(entry, "request"):
            if entry["activity"] == SUBMIT:
                self.requests.setdefault(request_id, _new_request(entry, details))
            elif (request := self.requests.get(request_id)) is not None:
                _update(request, entry["activity"], details)


def quality_band(quality: float | None, edges: Sequence[int] = QUALITY_EDGES) -> str:
    if quality is None:
        return NOT_MEASURED
    if quality < edges[0]:
        return f"under {edges[0]}"
    for low, high in pairwise(edges):
        if quality < high:
            return f"{low} to {high}"
    return f"{edges[-1]} and over"


def _new_request(entry: Mapping[str, Any], details: Mapping[str, str]) -> RequestFact:
    return RequestFact(
        month=_month(entry),
        force=entry["actor"]["force"],
        purpose=entry["purpose"] or NONE_NAMED,
        offence=_plain(details.get("offence", "")),
        watchlists=" + ".join(sorted(filter(None, details.get("watchlists", "").split(",")))) or NONE_NAMED,
        is_planted="planted" in details,
    )


def _update(request: RequestFact, activity: str, details: Mapping[str, str]) -> None:
    if activity == _SEARCH:
        request.searches = list(filter(None, details.get("searches", "").split(",")))
    elif activity == _RELEASE:
        request.ended = "released"
        request.has_name = int(details.get("potential_names", "0") or 0) > 0
    elif activity == _OUTCOME:
        request.outcome = details.get("kind", NONE_NAMED)
    elif activity in ENDINGS:
        request.ended = ENDINGS[activity]
        request.is_planted |= activity == "close_known_answer"
    elif activity == "assess" and details.get("state") == "unsuitable":
        request.ended = "unsuitable"


def _watchlists(entry: Mapping[str, Any]) -> str:
    return " + ".join(sorted(_named(entry, "watchlist"))) or NONE_NAMED


def _named(entry: Mapping[str, Any], kind: str) -> list[str]:
    return [name.partition(":")[2] for name in entry["objects"] if name.startswith(f"{kind}:")]


def _plain(text: str) -> str:
    """An offence in words as a category: case and spaces make no difference."""
    return " ".join(text.lower().split()) or NONE_NAMED


def _month(entry: Mapping[str, Any]) -> str:
    return str(entry["recorded_at"][:7])
