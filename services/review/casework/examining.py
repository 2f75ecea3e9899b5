"""Judging candidates: one person, every candidate, in an order of their own, blind to what the other one found."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from services.review.casework.caller import Caller
from services.review.casework.comparison import Comparison, OpenedCandidate, compared
from services.review.casework.forms import MAX_PROSE_CHARS, prose
from services.review.casework.signing import judgement_sha256
from services.review.casework.steps import Casebook, changed_meanwhile, is_requester, own_request
from services.review.casework.trail import About, Act
from services.review.casework.training import CurrentTraining, TrainingCheck
from services.review.model import (
    Adjudication,
    CandidateForJudgement,
    Case,
    CaseState,
    Examination,
    FeatureRemark,
    Finding,
    Observation,
    Signature,
)
from services.review.ports import ReferenceDirectory
from services.review.workflow import Action, agree, is_blind, settled
from services.rpc.v1 import audit_pb2, reference_pb2
from services.shared.errors import Conflict, Forbidden, InvalidRequest, NotFound
from services.shared.ids import new_id
from services.shared.people import is_same_person

JUDGE, UNDO, OPEN_CANDIDATE, SEE_COMPARISON = "judge_candidate", "undo_judgement", "open_candidate", "see_comparison"
# A possible match is said feature by feature, not at a glance.
LEAST_FEATURES_OF_A_MATCH = 3
_OPEN_STATES = (CaseState.IN_FIRST_REVIEW, CaseState.IN_SECOND_REVIEW)


@dataclass(frozen=True, slots=True)
class Mine:
    """A case, and the caller's own open examination of it."""

    case: Case
    examination: Examination


class Examining:
    """First and second review. Which of the two it is follows from the state of the case, never from the caller."""

    def __init__(
        self, book: Casebook, training: TrainingCheck, references: ReferenceDirectory, min_view_s: float
    ) -> None:
        self._book = book
        self._training = training
        self._references = references
        self._min_view_s = min_view_s

    def begin(self, caller: Caller, request_id: str, version: int) -> Comparison:
        """Take the first or the second review on. Of two who do so at once, one gets it and the other a Conflict.

        Raises Forbidden (`not_trained`, `own_request`, `already_examined`), Conflict, NotFound.
        """
        book = self._book
        with book.refusals(caller, "begin_review", request_id):
            state = book.working(caller, request_id).state
        action = Action.BEGIN_SECOND if state is CaseState.AWAITING_SECOND_REVIEW else Action.BEGIN_FIRST
        with book.step(caller, request_id, action, version, operation=audit_pb2.CONSULTATION) as step:
            self._training.require(caller)
            _require_blind(caller)
            self._require_new(caller, request_id)
            begun = self._begun(caller, step.case, 2 if action is Action.BEGIN_SECOND else 1)
            case = step.move(begun)
            return self._view(case, replace(begun, version=begun.version + 1))

    def comparison(self, caller: Caller, request_id: str) -> Comparison:
        """The caller's own examination, also after it was signed. Raises NotFound when there is none."""
        book = self._book
        with book.refusals(caller, SEE_COMPARISON, request_id):
            mine = self._mine(caller, request_id)
        book.trail.consulted(caller.principal, SEE_COMPARISON, About.case(mine.case))
        return self._view(mine.case, mine.examination)

    def open(self, caller: Caller, request_id: str, candidate_id: str) -> OpenedCandidate:
        """Begin to look at a candidate: the minimum viewing time runs from the first time that this is called."""
        book = self._book
        with book.refusals(caller, OPEN_CANDIDATE, request_id):
            mine = self._mine(caller, request_id)
            candidate = _candidate(mine, candidate_id)
        book.trail.consulted(
            caller.principal, OPEN_CANDIDATE, About.case(mine.case, f"reference:{candidate.reference_id}")
        )
        examination = mine.examination
        if candidate_id not in examination.opened_at and examination.signature is None:
            opened_at = {**examination.opened_at, candidate_id: book.clock.now()}
            examination = book.store.save_examination(replace(examination, opened_at=opened_at))
        known = self._known(caller, candidate)
        others = [one.reference_id for one in known if one.reference_id != candidate.reference_id]
        view = self._view(mine.case, examination)
        shown = next(one for one in view.candidates if one.candidate_id == candidate_id)
        return OpenedCandidate(shown, (candidate.reference_id, *others))

    def _known(self, caller: Caller, candidate: CandidateForJudgement) -> Sequence[reference_pb2.EnrolledReference]:
        """Nothing where they are gone since, or their owner's agreement is: without its pictures the candidate is
        still to be judged, for a case with one that cannot be would never end."""
        with suppress(NotFound, Forbidden):
            return self._references.references_of(
                caller.bearer, candidate.watchlist, candidate.owner, candidate.subject_id
            )
        return ()

    def judge(
        self,
        caller: Caller,
        request_id: str,
        version: int,
        *,
        candidate_id: str,
        finding: Finding,
        features: Sequence[FeatureRemark],
        remarks: str,
    ) -> Comparison:
        """Record a finding; an earlier one of the same candidate stays on record and no longer counts.

        `version` is the examination's. Raises Conflict (`not_viewed_long_enough` with `wait_s`, `changed_meanwhile`,
        `already_signed`), InvalidRequest (no reason given), Forbidden, NotFound.
        """
        with self._judging(caller, request_id, version, JUDGE, candidate_id) as (mine, act):
            viewed_s = self._viewed_s(mine.examination, candidate_id)
            judged = Adjudication(
                candidate_id=candidate_id,
                finding=finding,
                features=_features(features),
                remarks=_reasons(finding, features, remarks),
                judged_at=self._book.clock.now(),
                viewed_s=round(viewed_s, 1),
            )
            act.details |= {"finding": finding.value, "viewed_s": str(judged.viewed_s)}
            return self._adjudicated(mine, judged, act)

    def undo(self, caller: Caller, request_id: str, version: int, candidate_id: str) -> Comparison:
        """Take a judgement back, until it is signed. That it was made stays on record."""
        with self._judging(caller, request_id, version, UNDO, candidate_id) as (mine, act):
            standing = mine.examination.standing().get(candidate_id)
            if standing is None:
                raise Conflict("This candidate is not judged.", advice="Look again.", code="not_judged")
            act.details["finding"] = standing.finding.value
            undone = replace(standing, is_undone=True, judged_at=self._book.clock.now())
            return self._adjudicated(mine, undone, act)

    def sign(self, caller: Caller, request_id: str, version: int) -> Case:
        """Sign the judgement of every candidate. After the second, the case is decided or disputed.

        `version` is the examination's. Raises Conflict (`not_all_judged`, `already_signed`), Forbidden (`not_trained`).
        """
        book = self._book
        with book.refusals(caller, "sign_judgement", request_id):
            mine = self._mine_open(caller, request_id, version)
            training = self._training.require(caller)
            if left := mine.examination.unjudged():
                raise Conflict(
                    f"{len(left)} candidates are not judged yet.",
                    advice="Judge every candidate; inconclusive is a judgement too.",
                    code="not_all_judged",
                    context={"remaining": len(left)},
                )
        action = Action.SIGN_FIRST if mine.examination.ordinal == 1 else Action.SIGN_SECOND_AGREEING
        digest = judgement_sha256(mine.examination)
        told = {"judgement_sha256": digest, "ordinal": str(mine.examination.ordinal)}
        with book.step(caller, request_id, action, mine.case.version, details=told) as step:
            signed = replace(
                mine.examination, signature=self._signature(caller, training, digest, step.act.intent.sequence)
            )
            step.act.details |= told
            if signed.ordinal == 1:
                return step.move(signed)
            outcome, changes = self._second(request_id, signed)
            return step.move(signed, action=outcome, **changes)

    def _second(self, request_id: str, second: Examination) -> tuple[Action, dict[str, Any]]:
        """What the second signature brings: a decision where both agree, a dispute where not."""
        first = next(one for one in self._book.store.examinations(request_id) if one.ordinal == 1)
        if agree(first.findings(), second.findings()):
            return Action.SIGN_SECOND_AGREEING, {"decided": settled(first.findings(), second.findings())}
        return Action.SIGN_SECOND_DISAGREEING, {}

    def _signature(self, caller: Caller, training: CurrentTraining, digest: str, sequence: int) -> Signature:
        return Signature(
            signed_by=caller.person_id,
            signed_at=self._book.clock.now(),
            trained_on=training.trained_on,
            training_expires_on=training.expires_on,
            judgement_sha256=digest,
            audit_sequence=sequence,
        )

    def _require_new(self, caller: Caller, request_id: str) -> None:
        examined = self._book.store.examinations(request_id)
        if any(is_same_person(one.examiner, caller.person_id) for one in examined):
            raise Forbidden(
                "You have examined this case already; the second review is another person's.",
                advice="Leave it to another trained operator.",
                context={"reasons": ["already_examined"]},
            )

    def _begun(self, caller: Caller, case: Case, ordinal: int) -> Examination:
        order = [candidate.candidate_id for candidate in case.candidates]
        random.SystemRandom().shuffle(order)
        return Examination(
            examination_id=new_id(),
            request_id=case.request_id,
            force=case.force,
            ordinal=ordinal,
            examiner=caller.person_id,
            version=0,
            order=tuple(order),
            started_at=self._book.clock.now(),
        )

    def _mine(self, caller: Caller, request_id: str) -> Mine:
        case = self._book.working(caller, request_id)
        for examination in self._book.store.examinations(request_id):
            if examination.examiner == caller.person_id:
                return Mine(case, examination)
        raise Conflict(
            "You are not examining this case.",
            advice="Begin the review, where it is free; nobody sees another person's before both are signed.",
            code="not_your_examination",
            context={"state": case.state.value, "version": case.version},
        )

    def _mine_open(self, caller: Caller, request_id: str, version: int) -> Mine:
        mine = self._mine(caller, request_id)
        _require_blind(caller)
        if is_requester(mine.case, caller.person_id):
            raise own_request()
        if mine.examination.signature is not None or mine.case.state not in _OPEN_STATES:
            raise Conflict(
                "Your judgement is signed; it stands.",
                advice="Nothing can be changed in it any more.",
                code="already_signed",
                context={"state": mine.case.state.value},
            )
        if mine.examination.version != version:
            raise changed_meanwhile(replace(mine.case, version=mine.examination.version))
        return mine

    @contextmanager
    def _judging(
        self, caller: Caller, request_id: str, version: int, activity: str, candidate_id: str
    ) -> Iterator[tuple[Mine, Act]]:
        """One change of an open examination, begun and ended in the audit log."""
        with self._book.refusals(caller, activity, request_id):
            mine = self._mine_open(caller, request_id, version)
            candidate = _candidate(mine, candidate_id)
        about = About.case(mine.case, f"reference:{candidate.reference_id}")
        with self._book.trail.act(caller.principal, activity, about) as act:
            yield mine, act

    def _viewed_s(self, examination: Examination, candidate_id: str) -> float:
        opened_at = examination.opened_at.get(candidate_id)
        viewed_s = 0.0 if opened_at is None else (self._book.clock.now() - opened_at).total_seconds()
        if opened_at is None or viewed_s < self._min_view_s:
            raise Conflict(
                "You have not looked at this candidate long enough.",
                advice=f"Compare for at least {self._min_view_s:g} seconds.",
                code="not_viewed_long_enough",
                context={"wait_s": round(self._min_view_s - viewed_s, 1)},
            )
        return viewed_s

    def _adjudicated(self, mine: Mine, adjudication: Adjudication, act: Act) -> Comparison:
        examination = mine.examination
        changed = replace(examination, adjudications=(*examination.adjudications, adjudication))
        with act.settling() as settles:
            saved = self._book.store.save_examination(changed, settles)
        return self._view(mine.case, saved)

    def _view(self, case: Case, examination: Examination) -> Comparison:
        return compared(case, examination, self._book.clock.now(), self._min_view_s)


def _require_blind(caller: Caller) -> None:
    if not is_blind(caller.principal):
        raise Forbidden(
            "Who may read the audit log judges no candidates: it says what the other examiner found.",
            advice="Ask your administrator for a token with the role operator and without auditor.",
            context={"reasons": ["reads_the_log"]},
        )


def _candidate(mine: Mine, candidate_id: str) -> CandidateForJudgement:
    candidate = mine.case.candidate(candidate_id)
    if candidate is None or candidate_id not in mine.examination.order:
        raise Conflict("There is no such candidate.", advice="Look at the case again.", code="no_such_candidate")
    return candidate


def _features(features: Sequence[FeatureRemark]) -> tuple[FeatureRemark, ...]:
    if len({one.feature for one in features}) < len(features):
        raise InvalidRequest("A feature is named twice.", advice="Say of each feature one thing.")
    if any(len(one.remark) > MAX_PROSE_CHARS for one in features):
        raise InvalidRequest(f"A remark has at most {MAX_PROSE_CHARS} characters.", advice="Shorten it.")
    return tuple(features)


def _reasons(finding: Finding, features: Sequence[FeatureRemark], remarks: str) -> str:
    """The remarks, when the finding is explained well enough. Raises InvalidRequest."""
    compared_features = [one for one in features if one.observation is not Observation.NOT_COMPARABLE]
    if finding is Finding.POSSIBLE_MATCH and len(compared_features) < LEAST_FEATURES_OF_A_MATCH:
        problem = f"A possible match names at least {LEAST_FEATURES_OF_A_MATCH} compared features."
        raise InvalidRequest(
            problem,
            advice="Compare feature by feature.",
            context={"fields": [{"field": "features", "problem": problem}]},
        )
    return prose("remarks", remarks) if not features or remarks.strip() else ""
