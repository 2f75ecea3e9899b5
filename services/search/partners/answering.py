"""A question of a partner's platform, answered as our own policy says and recorded in our own log."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import orjson

from services.search.identification.acceptance import IMAGE_FIELD
from services.search.identification.trail import search_object
from services.search.partners import tokens
from services.search.partners.answers import answer_of
from services.search.partners.config import Partner, PartnerFile
from services.search.partners.ports import Direction, IdentificationFor, PartnerStore
from services.search.partners.tokens import Asked, Question
from services.search.partners.trail import PartnerTrail
from services.shared.clock import Clock
from services.shared.errors import CallerError, Forbidden, InvalidRequest, Unauthenticated
from services.shared.multipart import Upload
from services.shared.rate_limits import RateExceeded, RateLimits
from services.shared.tokens import Principal


@dataclass(frozen=True, slots=True)
class Caller:
    """A partner known by its certificate, with a question that it has signed."""

    partner: Partner
    asked: Asked


class AnswerPartner:
    """Answers a partner. The steps:

    1. the certificate is a configured partner's, and it has not asked too often;
    2. the token is that partner's question to us, used for the first time, and about this picture;
    3. the intent of the disclosure is durable;
    4. the search is made for the person whom the partner names, by our policy, agreements, limits and guard against
       near duplicates, and recorded as every search is; the same exchange is answered once;
    5. the disclosure's outcome is durable, then the answer leaves: candidates, and no picture, template or other face.
    """

    def __init__(
        self,
        *,
        file: PartnerFile,
        identify_for: IdentificationFor,
        store: PartnerStore,
        trail: PartnerTrail,
        limits: RateLimits,
        person_limits: RateLimits,
        clock: Clock,
    ) -> None:
        """`limits` count a partner's questions, `person_limits` those of its people and forces as one's own."""
        self._file = file
        self._identify_for = identify_for
        self._store = store
        self._trail = trail
        self._limits = limits
        self._person_limits = person_limits
        self._clock = clock

    def caller(self, certificate: bytes | None, token: str) -> Caller:
        """Before the picture is read. Raises Forbidden, Unauthenticated, RateExceeded, AuditUnavailable."""
        partners = self._file.current()
        partner = None if certificate is None else partners.with_certificate(certificate)
        if partner is None:
            raise Forbidden(
                "The certificate is no configured partner's.",
                advice="Agree on names and certificates with this platform's operators.",
                code="partner_unknown",
            )
        self._take(partner)
        try:
            return Caller(partner, tokens.verify(partners, partner, token))
        except CallerError as error:
            self._trail.refused(partner.name, error)
            raise

    def __call__(self, caller: Caller, picture: bytes) -> bytes:
        """The JSON of `PartnerAnswer`. Raises everything that a search raises, Unauthenticated for a token that was
        used before."""
        question, partner = caller.asked.question, caller.partner
        try:
            self._require_fresh(caller.asked, picture)
        except CallerError as error:
            self._trail.refused(partner.name, error)
            raise
        principal = tokens.principal_of(question, partner)
        with self._trail.exchange(
            Direction.RECEIVED,
            partner.name,
            principal,
            question.purpose,
            question.case_reference,
            (f"probe:{question.picture_sha256}",),
            _about(question),
        ) as act:
            self._person_limits.take(principal)
            _require_watchlists(question, partner)
            identify = self._identify_for({"partner": partner.name, "exchange": question.exchange_id})
            found = identify(principal, _form(question, picture), f"partner:{question.exchange_id}")
            document = orjson.loads(found)
            answer = answer_of(question, document)
            act.objects.append(search_object(document["search_id"]))
            act.objects += [f"reference:{candidate['reference_id']}" for candidate in document["candidates"]]
            act.details = {
                "model_id": document["model"]["model_id"],
                "candidates": str(len(document["candidates"])),
                "policy": document["policy"]["digest"],
                "watchlists_version": document["policy"]["watchlists"],
                "answer_sha256": hashlib.sha256(answer).hexdigest(),
            }
        return answer

    def _take(self, partner: Partner) -> None:
        name = f"partner:{partner.name}"
        try:
            self._limits.take(Principal(name, name, frozenset(), frozenset()))
        except RateExceeded as error:
            if error.is_reportable:
                self._trail.refused(partner.name, error)
            raise

    def _require_fresh(self, asked: Asked, picture: bytes) -> None:
        if hashlib.sha256(picture).hexdigest() != asked.question.picture_sha256:
            raise InvalidRequest("The picture is not the one that the question is about.", advice="Send it again.")
        if not self._store.use_token(asked.token_id, asked.expires_at, self._clock.now()):
            raise Unauthenticated(
                "This token was used before.", advice="Sign each question anew.", code="token_used_before"
            )


def _about(question: Question) -> dict[str, str]:
    return {
        "authority": question.authority,
        "watchlists": ",".join(question.watchlists),
        "partner_search": question.home_search_id,
        "exchange": question.exchange_id,
        "picture_sha256": question.picture_sha256,
    }


def _require_watchlists(question: Question, partner: Partner) -> None:
    """Also one that does not exist here, so that nobody learns which do."""
    denied = sorted(set(question.watchlists) - set(partner.answer_watchlists))
    if denied:
        raise Forbidden(
            f"You are not permitted to search {', '.join(denied)}.",
            advice="Ask for what the two forces have agreed on.",
            context={"reasons": ["watchlist_not_permitted"]},
        )


def _form(question: Question, picture: bytes) -> Upload:
    """The question in the words of the REST form, so that one parser judges both."""
    single = {
        "case_reference": question.case_reference,
        "purpose": question.purpose,
        "offence": question.offence,
        "source": question.source,
        "case_type": question.case_type.value,
        "nature": question.nature.value,
        "mode": question.mode,
        "max_candidates": str(question.max_candidates),
    }
    texts = {name: (value,) for name, value in single.items()}
    return Upload({**texts, "watchlists": question.watchlists}, {IMAGE_FIELD: (picture,)})
