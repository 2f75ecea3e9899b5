"""Other forces' platforms in a case: whom an operator may have asked, and what is kept of what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.review.casework.caller import Caller
from services.review.casework.forms import prose
from services.review.model import Case, ProbeImage
from services.review.partners import ANSWERED, NOT_SENT, PartnerCandidate, PartnerEnquiry
from services.review.ports import Searcher
from services.rpc.v1 import search_pb2
from services.shared.clock import rfc3339
from services.shared.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Disclosing:
    """To whom the original goes with a search, and by whose authority. Nobody: a search at home alone."""

    offers: tuple[search_pb2.PartnerOffer, ...] = ()
    authority: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(offer.name for offer in self.offers)


NOBODY = Disclosing()


def disclosing(searcher: Searcher, caller: Caller, case: Case, names: Sequence[str], authority: str) -> Disclosing:
    """What was asked for, held to what may be had. Raises Forbidden (`partner_not_permitted`), InvalidRequest."""
    if not names:
        return NOBODY
    told = " ".join(prose("authority", authority).split())
    offered = {offer.name: offer for offer in searcher.partners(caller.bearer, case.request.watchlists)}
    denied = sorted(set(names) - offered.keys())
    if denied:
        raise Forbidden(
            f"{', '.join(denied)} cannot be asked about {', '.join(case.request.watchlists)}.",
            advice="Ask the partners that the page of the probe offers: an agreement may have ended.",
            context={"reasons": ["partner_not_permitted"]},
        )
    return Disclosing(tuple(offered[name] for name in dict.fromkeys(names)), told)


@dataclass(frozen=True, slots=True)
class Question:
    """What the enquiries of one search have in common."""

    to: Disclosing
    probe: ProbeImage
    search_id: str
    asked_by: str
    asked_at: datetime

    def answered(self, document: Mapping[str, Any]) -> tuple[PartnerEnquiry, ...]:
        """What search's answer says of each partner."""
        by_name = {told["partner"]: told for told in document["partners"]}
        return tuple(self._enquiry(offer, by_name[offer.name]) for offer in self.to.offers)

    def not_sent(self) -> tuple[PartnerEnquiry, ...]:
        """Of a planted probe: nobody's picture is disclosed to another force for an exercise."""
        nothing: Mapping[str, Any] = {"status": NOT_SENT, "problem": None, "watchlists": (), "answer": None}
        return tuple(self._enquiry(offer, nothing) for offer in self.to.offers)

    def _enquiry(self, offer: search_pb2.PartnerOffer, told: Mapping[str, Any]) -> PartnerEnquiry:
        status, answer = str(told["status"]), told["answer"]
        scopes = answer["searched"] if answer else ()
        listed = answer["candidates"] if answer else ()
        return PartnerEnquiry(
            partner=offer.name,
            status=status,
            probe_id=self.probe.probe_id,
            image_sha256=self.probe.original.sha256,
            search_id=self.search_id,
            authority=self.to.authority,
            asked_by=self.asked_by,
            asked_at=self.asked_at,
            watchlists=tuple(scope["watchlist"] for scope in scopes) or tuple(offer.watchlists),
            agreements=tuple(dict.fromkeys(one for scope in scopes for one in scope["agreements"]))
            or tuple(offer.agreements),
            # Why nothing left is told in one way, so that nothing can be read from it.
            detail="" if status in {ANSWERED, NOT_SENT} else str((told["problem"] or {}).get("detail", "")),
            their_search_id=answer["search_id"] if answer else "",
            model_id=answer["model"]["model_id"] if answer else "",
            searchable=answer["searchable"] if answer else 0,
            candidate_count=len(listed),
            candidates=tuple(
                PartnerCandidate(
                    one["rank"], one["subject_id"], one["owner"], one["watchlist"], one["reference_id"], one["score"]
                )
                for one in listed
            ),
        )


def partner_facts(one: PartnerEnquiry) -> dict[str, Any]:
    """As documents say it."""
    return {
        "partner": one.partner,
        "is_answered": one.is_answered,
        "why_not": one.why_not,
        "detail": one.detail,
        "watchlists": list(one.watchlists),
        "agreements": list(one.agreements),
        "authority": one.authority,
        "asked_by": one.asked_by,
        "asked_at": rfc3339(one.asked_at),
        "sha256": one.image_sha256,
        "search_id": one.their_search_id,
        "model": one.model_id,
        "searchable": one.searchable,
        "listed": one.candidate_count,
        "candidates": [
            {
                "rank": found.rank,
                "subject_id": found.subject_id,
                "owner": found.owner,
                "watchlist": found.watchlist,
                "reference_id": found.reference_id,
                "score": f"{found.score:.4f}",
            }
            for found in one.candidates
        ],
    }
