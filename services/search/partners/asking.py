"""A search at home that goes to partners too. Theirs to decide, ours to attribute."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, NoReturn
from uuid import UUID, uuid5

import orjson

from services.rpc.v1 import audit_pb2
from services.search.identification.acceptance import IMAGE_FIELD, MAX_KEY_CHARS
from services.search.identification.requests import MAX_TEXT_CHARS, ImageNature
from services.search.identification.trail import search_object
from services.search.partners.answers import PartnerAnswer, PartnerStatus
from services.search.partners.config import Partner, PartnerFile, Partners
from services.search.partners.merging import SourceList, merge, source_list
from services.search.partners.picture import PartnerPicture, Renderer, picture_for
from services.search.partners.ports import Consortium, Direction, Identification, PartnerLink, PartnerStore, Reply
from services.search.partners.tokens import Question
from services.search.partners.trail import PartnerTrail, consortium_object, partner_search_object
from services.search.policy import SEARCHING_ROLE
from services.shared.clock import Clock, rfc3339
from services.shared.errors import CallerError, Forbidden, InvalidRequest, LikenessError
from services.shared.ids import new_id
from services.shared.multipart import Upload
from services.shared.tokens import Principal

PARTNERS_FIELD, AUTHORITY_FIELD = "partners", "authority"
_NO_FILE = "No partner is configured on this platform."

# What may be no photograph of anybody does not go to another force before somebody has looked at it.
_FLAGGED = Reply(
    PartnerStatus.NOT_SENT,
    code="probe_flagged",
    detail="The probe is flagged: it was not disclosed to a partner.",
    advice="A supervisor decides first; a flagged picture is searched here alone.",
)

# What the log has as the outcome of each; all others were answered by the partner's platform.
_PHASES: Mapping[PartnerStatus, audit_pb2.Phase.ValueType] = {
    PartnerStatus.ANSWERED: audit_pb2.DONE,
    PartnerStatus.REFUSED: audit_pb2.REFUSED,
    # The picture may have been received.
    PartnerStatus.TIMED_OUT: audit_pb2.UNKNOWN,
    PartnerStatus.NONSENSE: audit_pb2.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class _Search:
    """One consortium search under way: the home answer, and what goes to partners."""

    consortium: Consortium
    home: Mapping[str, Any]
    partners: Partners
    authority: str
    probe: bytes

    def question(self, partner: Partner, watchlists: Sequence[str], picture: PartnerPicture) -> Question:
        who, asked = self.consortium.principal, self.home["request"]
        return Question(
            # The same for the same question, however often it is sent.
            exchange_id=str(uuid5(UUID(self.consortium.consortium_id), partner.name)),
            home_search_id=self.home["search_id"],
            person=who.person_id,
            force=who.force,
            roles=tuple(sorted(who.roles)),
            trained_until=who.trained_until,
            case_reference=asked["case_reference"],
            purpose=asked["purpose"],
            offence=asked["offence"],
            authority=self.authority,
            source=asked["source"],
            case_type=asked["case_type"],
            nature=asked.get("nature", ImageNature.UNSTATED),
            watchlists=tuple(watchlists),
            mode=asked["mode"],
            max_candidates=asked["max_candidates"],
            picture_sha256=hashlib.sha256(picture.content).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class _Told:
    """What a partner was sent and what came of it."""

    partner: str
    reply: Reply
    watchlists: Sequence[str] = ()
    picture: PartnerPicture | None = None
    took_ms: float | None = None


class SearchConsortium:
    """Searches at home, then asks the named partners. In the order of their effects:

    1. names, authority and key are complete, the partners are configured: else refused, and the refusal recorded;
    2. the search at home, which is a search like any other: where it is refused or fails, nothing leaves;
    3. for each partner, at the same time: the intent of the disclosure is durable, the picture goes, the answer is
       checked, the outcome is durable; whatever goes wrong with a partner is that partner's entry in the answer;
    4. lists are attributed, and merged where they are comparable (merging.py); the answer is stored, then given out.

    Asked again with the same key, what was answered is given again, and what was cut off is taken up.
    """

    def __init__(
        self,
        *,
        file: PartnerFile | None,
        identify: Identification,
        link: PartnerLink,
        store: PartnerStore,
        trail: PartnerTrail,
        renderer: Renderer,
        clock: Clock,
        executor: Executor,
    ) -> None:
        self._file = file
        self._identify = identify
        self._link = link
        self._store = store
        self._trail = trail
        self._renderer = renderer
        self._clock = clock
        self._executor = executor

    def __call__(self, principal: Principal, upload: Upload, idempotency_key: str | None = None) -> bytes:
        """The JSON of the answer. Raises what a search at home raises, InvalidRequest, Conflict."""
        try:
            _require_role(principal)
            partners, named, authority = self._wanted(upload)
        except CallerError as error:
            self._identify.reject(principal, error)
        texts = {name: values for name, values in upload.texts.items() if name not in {PARTNERS_FIELD, AUTHORITY_FIELD}}
        key = None if idempotency_key is None else key_at_home(idempotency_key)
        home = orjson.loads(self._identify(principal, Upload(texts, upload.files), key))
        opened = self._open(principal, home, [partner.name for partner in named], authority, key)
        if opened.document is not None:
            self._viewed(principal, opened)
            return opened.document
        # A search that is taken up is asked for by whoever asks now, with the training of today.
        taken_up = replace(opened, principal=principal)
        search = _Search(taken_up, home, partners, authority, upload.files[IMAGE_FIELD][0])
        told = self._ask_all(search, named)
        document = orjson.dumps(_document(search, told))
        self._store.finish(opened.consortium_id, document)
        # Partners have their time, and the list at home has waited for them: an owner may have withdrawn meanwhile.
        self._identify.require_still(principal, home)
        return document

    def reject(self, principal: Principal, error: CallerError) -> NoReturn:
        """Record and raise what made an upload unreadable."""
        self._identify.reject(principal, error)

    def _wanted(self, upload: Upload) -> tuple[Partners, tuple[Partner, ...], str]:
        if self._file is None:
            raise InvalidRequest(_NO_FILE, advice="Search at home with /v1/searches.")
        partners = self._file.current()
        named = partners.named(tuple(value.strip() for value in upload.texts.get(PARTNERS_FIELD, ())))
        [authority, *more] = (*upload.texts.get(AUTHORITY_FIELD, ()), "")
        if any(more) or not authority.strip() or len(authority) > MAX_TEXT_CHARS or not authority.isprintable():
            raise InvalidRequest(
                "Missing or invalid: authority.",
                advice="Say by which authority the probe is disclosed to another force, and who gave it.",
                context={"fields": [{"field": AUTHORITY_FIELD, "problem": f"Once, 1 to {MAX_TEXT_CHARS} characters."}]},
            )
        return partners, named, authority.strip()

    def _open(
        self, principal: Principal, home: Mapping[str, Any], names: Sequence[str], authority: str, key: str | None
    ) -> Consortium:
        content = [home["search_id"] if key is None else home["probe"]["sha256"], home["request"], names, authority]
        return self._store.open(
            Consortium(
                consortium_id=new_id(),
                principal=principal,
                case_reference=home["request"]["case_reference"],
                purpose=home["request"]["purpose"],
                watchlists=tuple(home["request"]["watchlists"]),
                fingerprint=hashlib.sha256(orjson.dumps(content)).hexdigest(),
                opened_at=self._clock.now(),
                idempotency_key=key,
            )
        )

    def _viewed(self, principal: Principal, earlier: Consortium) -> None:
        self._trail.viewed(
            principal, earlier.consortium_id, purpose=earlier.purpose, case_reference=earlier.case_reference
        )

    def _ask_all(self, search: _Search, named: Sequence[Partner]) -> list[_Told]:
        """Each within its own time, all at once, in the order in which they were named."""
        asked = [self._executor.submit(self._ask, search, partner) for partner in named]
        return [future.result() for future in asked]

    def _ask(self, search: _Search, partner: Partner) -> _Told:
        watchlists = [name for name in search.home["request"]["watchlists"] if name in partner.ask_watchlists]
        if not watchlists or partner.address is None:
            return _Told(partner.name, _not_asked(partner))
        if search.home["probe"].get("needs_supervisor"):
            return _Told(partner.name, _FLAGGED, watchlists)
        started_s = self._clock.monotonic_s()
        try:
            told = self._disclose(search, partner, watchlists)
        except LikenessError as error:
            reply = Reply(PartnerStatus.NOT_SENT, code=error.code, detail=error.detail, advice=error.advice)
            told = _Told(partner.name, reply, watchlists)
        return replace(told, took_ms=round((self._clock.monotonic_s() - started_s) * 1000, 3))

    def _disclose(self, search: _Search, partner: Partner, watchlists: Sequence[str]) -> _Told:
        """Raises LikenessError as long as nothing has left; afterwards whatever happens is in the reply."""
        picture = picture_for(search.probe, search.home, self._renderer)
        question = search.question(partner, watchlists, picture)
        told: _Told | None = None
        try:
            with self._trail.exchange(
                Direction.SENT,
                partner.name,
                search.consortium.principal,
                question.purpose,
                question.case_reference,
                (
                    search_object(question.home_search_id),
                    consortium_object(search.consortium.consortium_id),
                    f"probe:{search.home['probe']['sha256']}",
                ),
                {
                    "authority": question.authority,
                    "watchlists": ",".join(watchlists),
                    "picture": picture.form,
                    "picture_sha256": question.picture_sha256,
                    "exchange": question.exchange_id,
                },
            ) as act:
                reply = self._link.ask(search.partners, partner, question, picture.content)
                told = _Told(partner.name, reply, watchlists, picture)
                act.phase = _PHASES.get(reply.status, audit_pb2.FAILED)
                act.details = _outcome(reply)
                if reply.answer is not None:
                    act.objects.append(partner_search_object(reply.answer.search_id))
        except LikenessError as error:
            if told is None:
                raise
            withheld = Reply(PartnerStatus.WITHHELD, code=error.code, detail=error.detail, advice=error.advice)
            return replace(told, reply=withheld)
        return told


def _require_role(principal: Principal) -> None:
    """Before anything is told of partners."""
    if SEARCHING_ROLE not in principal.roles:
        raise Forbidden(f"Only the role {SEARCHING_ROLE} may search.", advice="Ask your administrator.")


def _not_asked(partner: Partner) -> Reply:
    lists = ", ".join(partner.ask_watchlists) or "none"
    return Reply(
        PartnerStatus.NOT_ASKED,
        code="no_watchlist_of_partner",
        detail=f"None of the watchlists asked for is one that {partner.name} is asked for.",
        advice=f"Its watchlists are: {lists}.",
    )


def _outcome(reply: Reply) -> dict[str, str]:
    if reply.answer is None:
        return {"status": reply.status.value, "reason": reply.code}
    answer = reply.answer
    return {
        "status": reply.status.value,
        "model_id": answer.model.model_id,
        "candidates": str(len(answer.candidates)),
        "policy": answer.policy.digest,
        "watchlists_version": answer.policy.watchlists,
        "answer_sha256": reply.answer_sha256,
    }


def _document(search: _Search, told: Sequence[_Told]) -> dict[str, Any]:
    home, own = search.home, search.partners.own.name
    lists = [_own_list(own, home), *(_their_list(one.partner, one.reply.answer) for one in told if one.reply.answer)]
    missing = [one.partner for one in told if one.reply.answer is None]
    return {
        "consortium_id": search.consortium.consortium_id,
        "status": "partial" if missing else "complete",
        "searched_at": rfc3339(search.consortium.opened_at),
        "authority": search.authority,
        "missing": missing,
        "home": {"source": own, **home},
        "partners": [_partner_document(one) for one in told],
        "lists": merge(lists),
        "statements": _statements(told, lists),
    }


def _own_list(own: str, home: Mapping[str, Any]) -> SourceList:
    mode = home["request"]["mode"]
    return source_list(own, home["model"], mode, home["threshold"]["by_watchlist"], home["candidates"])


def _their_list(partner: str, answer: PartnerAnswer) -> SourceList:
    document = answer.model_dump(mode="json")
    return source_list(partner, document["model"], answer.mode, document["thresholds"], document["candidates"])


def _partner_document(told: _Told) -> dict[str, Any]:
    reply, answer = told.reply, told.reply.answer
    return {
        "partner": told.partner,
        "status": reply.status.value,
        "watchlists": list(told.watchlists),
        "problem": None if answer is not None else {"code": reply.code, "detail": reply.detail, "advice": reply.advice},
        "sent": None
        if told.picture is None
        else {"picture": told.picture.form, "sha256": hashlib.sha256(told.picture.content).hexdigest()},
        "answer": None if answer is None else answer.model_dump(mode="json", exclude={"format", "exchange_id", "mode"}),
        "took_ms": told.took_ms,
    }


def key_at_home(key: str) -> str:
    """Of its own for the search at home, so that the same key on /v1/searches is another request; of a key that would
    be too long by that, the digest: two that begin alike are two."""
    named = f"consortium:{key}"
    return named if len(named) <= MAX_KEY_CHARS else f"consortium:{hashlib.sha256(key.encode()).hexdigest()}"


def _statements(told: Sequence[_Told], lists: Sequence[SourceList]) -> list[str]:
    said = ["FOR INTELLIGENCE PURPOSES ONLY. A candidate of a partner is not an identification either."]
    said += [
        f"{one.partner} gave no list ({one.reply.status.value}): that nobody of its galleries is named means nothing."
        for one in told
        if one.reply.answer is None
    ]
    if len({one.comparable for one in lists}) > 1:
        said.append(
            "The platforms do not all run one model at one operating point: their lists stand side by side, and scores "
            "of different lists must not be compared."
        )
    said.append(
        "Pictures of a partner's candidates stay with the partner: ask that force, naming its search and the rank."
    )
    return said
