"""Disagreement, release, outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from services.review.casework.caller import Caller
from services.review.casework.forms import prose
from services.review.casework.probes import permitted
from services.review.casework.retention import check_day
from services.review.casework.signing import arbitration_sha256
from services.review.casework.statements import statements
from services.review.casework.steps import Casebook, Step, is_requester
from services.review.casework.trail import About
from services.review.casework.training import TrainingCheck
from services.review.error_rates import ErrorRates
from services.review.model import (
    Arbitration,
    CandidateForJudgement,
    Case,
    CaseState,
    Examination,
    Finding,
    Outcome,
    OutcomeKind,
    PotentialName,
    Release,
    Signature,
)
from services.review.ports import AgreementRegister
from services.review.workflow import SUPERVISOR, Action, agree, disputed, settled
from services.rpc.v1 import audit_pb2
from services.shared.errors import Conflict, Forbidden, InvalidRequest
from services.shared.people import is_same_person
from services.shared.watchlists import WatchlistFile, Watchlists

SEE_DISAGREEMENT = "see_disagreement"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Both signed judgements side by side, and what they differ in. For supervisors, of disputed cases."""

    case: Case
    first: Examination
    second: Examination
    disputed: tuple[CandidateForJudgement, ...]


class Deciding:
    """What follows two signed judgements."""

    def __init__(
        self,
        book: Casebook,
        training: TrainingCheck,
        watchlists: WatchlistFile,
        register: AgreementRegister,
        rates: ErrorRates,
    ) -> None:
        self._book = book
        self._training = training
        self._watchlists = watchlists
        self._register = register
        self._rates = rates

    def disagreement(self, caller: Caller, request_id: str) -> Disagreement:
        """Raises Conflict (`illegal_transition`) unless the case is disputed, NotFound, Forbidden."""
        book = self._book
        with book.refusals(caller, SEE_DISAGREEMENT, request_id):
            case = book.working(caller, request_id, SUPERVISOR)
            if case.state is not CaseState.DISPUTED:
                raise Conflict(
                    "There is no disagreement to decide.",
                    advice="Judgements are shown once both are signed and differ.",
                    code="illegal_transition",
                    context={"state": case.state.value, "possible": []},
                )
        book.trail.consulted(caller.principal, SEE_DISAGREEMENT, About.case(case))
        first, second = _signed(book.store.examinations(request_id))
        ids = disputed(first.findings(), second.findings())
        return Disagreement(case, first, second, tuple(one for one in case.candidates if one.candidate_id in ids))

    def arbitrate(
        self,
        caller: Caller,
        request_id: str,
        version: int,
        *,
        findings: Mapping[str, Finding],
        reasons: Mapping[str, str],
    ) -> Case:
        """A supervisor decides every disputed candidate, with a reason each. The supervisor is a third person, trained.

        Raises Forbidden (`already_examined`, `not_trained`, `own_request`), InvalidRequest, Conflict.
        """
        with self._book.step(caller, request_id, Action.ARBITRATE, version) as step:
            first, second = _signed(self._book.store.examinations(request_id))
            if any(is_same_person(caller.person_id, one.examiner) for one in (first, second)):
                raise Forbidden(
                    "Who has examined a case does not decide its disagreement.",
                    advice="Another supervisor has to do it.",
                    context={"reasons": ["already_examined"]},
                )
            training = self._training.require(caller)
            decided, told = _decisions(disputed(first.findings(), second.findings()), findings, reasons)
            digest = arbitration_sha256(request_id, caller.person_id, decided, told)
            step.act.details["judgement_sha256"] = digest
            now = self._book.clock.now()
            signature = Signature(
                caller.person_id, now, training.trained_on, training.expires_on, digest, step.act.intent.sequence
            )
            everything = {**settled(first.findings(), second.findings()), **decided}
            return step.move(arbitration=Arbitration(decided, told, signature), decided=everything)

    def release(self, caller: Caller, request_id: str, version: int, retain_until: date) -> Case:
        """The result goes to the requesting force: potential names, or none. The entry is durable before it does.

        1. two judgements, signed, of different people, neither the requester's, both trained when they signed;
        2. they agree, or a supervisor has decided what they differ in;
        3. the agreements that it rests on are still in force today;
        4. a known-answer probe is not released: it is closed, and its answer told.
        Raises Conflict, Forbidden, InvalidRequest, AuditUnavailable.
        """
        case = self._book.store.find(request_id)
        if case is not None and case.known_answer is not None:
            with self._book.refusals(caller, Action.RELEASE.value, request_id):
                # What keeps any other request from being released does so here, in the same words and the same entry:
                # else whoever asks too early would learn which one is planted.
                self._book.for_action(caller, request_id, Action.RELEASE, version)
                check_day(retain_until, self._book.clock.now(), "retain_until")
            with self._book.step(caller, request_id, Action.CLOSE_KNOWN_ANSWER, version) as step:
                return step.move()
        recipients = {"retain_until": retain_until.isoformat()}
        with self._book.step(
            caller, request_id, Action.RELEASE, version, operation=audit_pb2.DISCLOSURE, details=recipients
        ) as step:
            return self._released(caller, step, retain_until)

    def _released(self, caller: Caller, step: Step, retain_until: date) -> Case:
        case, watchlists = step.case, self._watchlists.current()
        now = self._book.clock.now()
        check_day(retain_until, now, "retain_until")
        examinations = _signed(self._book.store.examinations(case.request_id))
        require_two_judgements(case, examinations)
        names = potential_names(case, watchlists, self._register, now.date())
        agreements = permitted(case, watchlists, self._register, now.date())
        step.act.recipients.append(f"force:{case.force}")
        step.act.details["potential_names"] = str(len(names))
        release = Release(
            names=names,
            released_by=caller.person_id,
            released_at=now,
            retain_until=retain_until,
            statements=(),
            audit=step.act.intent,
        )
        said = statements(replace(case, release=release), examinations, agreements, self._rates)
        return step.move(release=replace(release, statements=said))

    def record_outcome(self, caller: Caller, request_id: str, version: int, kind: OutcomeKind, remarks: str) -> Case:
        """What became of a released result, by the requesting force. A later one takes the place of an earlier one."""
        with self._book.step(caller, request_id, Action.RECORD_OUTCOME, version, details={"kind": kind.value}) as step:
            outcome = Outcome(kind, remarks.strip()[:2000], caller.person_id, self._book.clock.now())
            return step.move(outcome=outcome)


def require_two_judgements(case: Case, examinations: tuple[Examination, Examination]) -> None:
    """The rule of release, asked again of what is stored, whatever brought the case here. Raises Conflict."""
    first, second = examinations
    are_two = not is_same_person(first.examiner, second.examiner)
    is_own = any(is_requester(case, one.examiner) for one in examinations)
    is_settled = agree(first.findings(), second.findings()) or case.arbitration is not None
    is_whole = all(set(one.findings()) == {c.candidate_id for c in case.candidates} for one in examinations)
    if not are_two or is_own or not is_settled or not is_whole:
        raise Conflict(
            "A release needs two signed judgements of every candidate, by different people who did not ask for it.",
            advice="Tell the operators: this case is not in order.",
            code="not_releasable",
        )


def potential_names(
    case: Case, watchlists: Watchlists, register: AgreementRegister, today: date
) -> tuple[PotentialName, ...]:
    """The candidates held for possible matches, with the agreement by which each is still shared. Raises Conflict."""
    names = []
    for candidate in case.candidates:
        if case.decided.get(candidate.candidate_id) is not Finding.POSSIBLE_MATCH:
            continue
        watchlist = watchlists.get(candidate.watchlist)
        needs_agreement = watchlist is None or watchlist.needs_agreement
        agreement = register.find(candidate.watchlist, candidate.owner, today) if needs_agreement else ""
        if needs_agreement and not agreement:
            raise Conflict(
                f"The agreement by which {candidate.owner} shared {candidate.watchlist} is no longer in force.",
                advice="Ask the owner; without an agreement the name is not released.",
                code="agreement_ended",
            )
        names.append(
            PotentialName(
                candidate_id=candidate.candidate_id,
                subject_id=candidate.subject_id,
                owner=candidate.owner,
                watchlist=candidate.watchlist,
                reference_id=candidate.reference_id,
                agreement=agreement,
            )
        )
    return tuple(names)


def _signed(examinations: Sequence[Examination]) -> tuple[Examination, Examination]:
    """The two signed examinations of a case. Raises Conflict."""
    found = [one for one in examinations if one.signature is not None]
    if [one.ordinal for one in found] != [1, 2]:
        raise Conflict("There are not two signed judgements.", advice="Wait for both.", code="not_releasable")
    return found[0], found[1]


def _decisions(
    wanted: tuple[str, ...], findings: Mapping[str, Finding], reasons: Mapping[str, str]
) -> tuple[dict[str, Finding], dict[str, str]]:
    if set(findings) != set(wanted):
        raise InvalidRequest(
            "Decide every disputed candidate, and no other.",
            advice="Give a finding and a reason for each.",
            context={"fields": [{"field": "findings", "problem": f"{len(wanted)} are disputed."}]},
        )
    return dict(findings), {candidate_id: prose("reasons", reasons.get(candidate_id, "")) for candidate_id in wanted}
