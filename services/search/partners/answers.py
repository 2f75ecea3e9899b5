"""What a partner answers: a document of a closed form, and what is made of one that has another."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.search.partners.tokens import Question, Sha256
from services.shared.watchlists import Identifier

# Fifty candidates, a hundred statements and a little: a hundredth of it is usual.
MAX_ANSWER_BYTES = 512 * 1024
ANSWER_FORMAT = "likeness.partner-answer.v1"

_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_PRINTABLE)]
Line = Annotated[str, StringConstraints(max_length=2000, pattern=_PRINTABLE)]


class _Frozen(BaseModel):
    # What a later version adds is left out: nothing of a partner's answer goes further unseen.
    model_config = ConfigDict(frozen=True, extra="ignore")


class PartnerCandidate(_Frozen):
    """One subject of the partner's list. `score` is the raw cosine of the partner's model."""

    rank: int = Field(ge=1, le=50)
    subject_id: Name
    reference_id: Name
    watchlist: Identifier
    owner: Name
    score: float = Field(ge=-1.0, le=1.0, allow_inf_nan=False)


class PartnerModel(_Frozen):
    """Two lists are of one model when all of this is equal."""

    model_id: Name
    detector_sha256: Annotated[str, StringConstraints(max_length=64)]
    recogniser_sha256: Annotated[str, StringConstraints(max_length=64)]
    preprocessing_version: Name


class PartnerThreshold(_Frozen):
    watchlist: Identifier
    value: float = Field(ge=-1.0, le=1.0, allow_inf_nan=False)
    version: Name


class PartnerScope(_Frozen):
    watchlist: Identifier
    owners: tuple[Name, ...] = Field(max_length=200)
    agreements: tuple[Name, ...] = Field(max_length=200)


class PartnerPolicy(_Frozen):
    """Digests of the policies, and of the watchlists and agreements, by which the partner permitted it."""

    digest: Sha256
    watchlists: Sha256


class PartnerAnswer(_Frozen):
    """A partner's list with what it stands on."""

    format: Literal["likeness.partner-answer.v1"]
    exchange_id: Name
    search_id: Name
    searched_at: Name
    model: PartnerModel
    mode: Literal["investigation", "identification"]
    thresholds: tuple[PartnerThreshold, ...] = Field(max_length=32)
    policy: PartnerPolicy
    searched: tuple[PartnerScope, ...] = Field(min_length=1, max_length=32)
    searchable: int = Field(ge=0)
    gallery_snapshot: Sha256 | None
    candidates: tuple[PartnerCandidate, ...] = Field(max_length=50)
    statements: tuple[Line, ...] = Field(max_length=100)

    @model_validator(mode="after")
    def _ranked(self) -> Self:
        if [one.rank for one in self.candidates] != list(range(1, len(self.candidates) + 1)):
            raise ValueError("ranks are not 1, 2, 3, …")
        if any(before.score < after.score for before, after in zip(self.candidates, self.candidates[1:], strict=False)):
            raise ValueError("scores do not fall")
        return self


class PartnerStatus(StrEnum):
    """What became of a question. Only ANSWERED has a list; nothing else says that nobody was found."""

    ANSWERED = "answered"
    # None of the watchlists asked for is one that this partner is asked for.
    NOT_ASKED = "not_asked"
    # The picture did not leave: it could not be recorded, or there is no room for another question.
    NOT_SENT = "not_sent"
    # The partner's policy or limits said no.
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    # It answered something else than an answer to this question.
    NONSENSE = "nonsense"
    # Its platform failed.
    FAILED = "failed"
    # It answered, and that could not be recorded here.
    WITHHELD = "withheld"


def read_answer(content: bytes, question: Question) -> PartnerAnswer:
    """The answer to this very question. Raises ValueError, whatever the partner sent."""
    try:
        document = orjson.loads(content)
        answer = PartnerAnswer.model_validate(document)
    except RecursionError as error:
        raise ValueError("too deep") from error
    if answer.exchange_id != question.exchange_id or answer.mode != question.mode:
        raise ValueError("an answer to another question")
    if len(answer.candidates) > question.max_candidates:
        raise ValueError("more candidates than were asked for")
    asked = set(question.watchlists)
    named = {one.watchlist for one in answer.candidates} | {one.watchlist for one in answer.thresholds}
    if not named | {one.watchlist for one in answer.searched} <= asked:
        raise ValueError("watchlists that were not asked for")
    owners = {(scope.watchlist, owner) for scope in answer.searched for owner in scope.owners}
    if any((one.watchlist, one.owner) not in owners for one in answer.candidates):
        raise ValueError("candidates of owners that were not searched")
    return answer


def answer_of(question: Question, document: Mapping[str, Any]) -> bytes:
    """What a partner is told of a search of ours: no faces, no picture, no template, nothing of the person who asks."""
    model, snapshot = document["model"], document["gallery_snapshot"]
    return orjson.dumps(
        {
            "format": ANSWER_FORMAT,
            "exchange_id": question.exchange_id,
            "search_id": document["search_id"],
            "searched_at": document["searched_at"],
            "model": {name: model[name] for name in PartnerModel.model_fields},
            "mode": document["request"]["mode"],
            "thresholds": [
                {"watchlist": point["watchlist"], "value": point["value"], "version": point["version"]}
                for point in document["threshold"]["by_watchlist"]
            ],
            "policy": document["policy"],
            "searched": document["searched"],
            "searchable": document["searchable"],
            "gallery_snapshot": None if snapshot is None else snapshot["snapshot_id"],
            "candidates": document["candidates"],
            "statements": document["statements"],
        }
    )
