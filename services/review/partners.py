"""What became of a question to another force's platform. Its list is that force's: attributed, and judged there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

ANSWERED, NOT_SENT = "answered", "not_sent"
# Why a partner was not searched, where it says nothing itself. None of it means that nobody was found there.
_WHY: Mapping[str, str] = {
    "not_asked": "none of the watchlists is one that it is asked for",
    NOT_SENT: "the question did not leave this platform",
    "refused": "its own policy or limits refused the question",
    "unreachable": "it could not be reached",
    "timed_out": "it did not answer in time; it may have received the picture",
    "nonsense": "its answer was not one to this question and was thrown away",
    "failed": "its platform could not search",
    "withheld": "it answered, and that could not be recorded here, so the answer was not used",
}


@dataclass(frozen=True, slots=True)
class PartnerCandidate:
    """One subject of a partner's list, by the partner's own identifiers. `score` is the raw cosine of its model."""

    rank: int
    subject_id: str
    owner: str
    watchlist: str
    reference_id: str
    score: float


@dataclass(frozen=True, slots=True)
class PartnerEnquiry:
    """One question to one partner, about the original of one probe. Only ANSWERED has a search and a list."""

    partner: str
    status: str
    probe_id: str
    image_sha256: str
    # Of ours, the search that went with it.
    search_id: str
    authority: str
    asked_by: str
    asked_at: datetime
    watchlists: tuple[str, ...]
    # By which the partner searched; while there is no answer, those that the question rested on here.
    agreements: tuple[str, ...]
    # In the partner's own words, or the link's; empty where there are none.
    detail: str = ""
    # The partner's own: whoever asks that force names it.
    their_search_id: str = ""
    model_id: str = ""
    searchable: int = 0
    candidate_count: int = 0
    candidates: tuple[PartnerCandidate, ...] = ()

    @property
    def is_answered(self) -> bool:
        return self.status == ANSWERED

    @property
    def why_not(self) -> str:
        """Why there is no list, in words."""
        return _WHY.get(self.status, "it gave no list")

    def without_list(self) -> PartnerEnquiry:
        """What may be known before the judgements are signed: that it was asked, and what became of it."""
        return replace(
            self,
            search_id="",
            their_search_id="",
            model_id="",
            searchable=0,
            candidates=(),
            candidate_count=0,
            # A partner that answered names its own, and a planted probe has none but ours.
            agreements=(),
        )


def before_judgement(enquiries: Iterable[PartnerEnquiry], *, is_planted: bool) -> tuple[PartnerEnquiry, ...]:
    """What may be known of them before the judgements are signed. A planted probe is sent to nobody, and would be
    recognised by it: until it is decided its questions look like those that were answered."""
    shown = [one.without_list() for one in enquiries]
    if is_planted:
        shown = [replace(one, status=ANSWERED) if one.status == NOT_SENT else one for one in shown]
    return tuple(shown)


def standing(enquiries: Iterable[PartnerEnquiry]) -> tuple[PartnerEnquiry, ...]:
    """Of each partner and probe what counts: its last list, or, where it never gave one, why it did not at last."""
    found: dict[tuple[str, str], PartnerEnquiry] = {}
    for one in enquiries:
        earlier = found.get((one.partner, one.probe_id))
        if earlier is None or one.is_answered or not earlier.is_answered:
            found[one.partner, one.probe_id] = one
    return tuple(found.values())
