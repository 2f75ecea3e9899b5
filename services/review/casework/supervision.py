"""What a supervisor sees and keeps: workload, turnaround, agreement, known-answer probes, training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt
from statistics import median

from services.review.casework.caller import Caller
from services.review.casework.forms import prose
from services.review.casework.steps import Casebook, require_role, told_to
from services.review.casework.trail import About
from services.review.model import Case, CaseState, Examination, Finding, Training, Urgency
from services.review.ports import CaseFilter
from services.review.suitability import BANDS, quality_band
from services.review.workflow import ADMINISTRATOR, SUPERVISOR, agree
from services.shared.errors import CallerError, Forbidden, InvalidRequest
from services.shared.people import is_same_person

SEE_FIGURES, RECORD_TRAINING = "see_figures", "record_training"
_EXPIRES_SOON = timedelta(days=60)
_ALL = 100_000
_Z = 1.959964  # 95 %


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its denominator and Wilson's 95 % interval; all None where there is nothing to divide by."""

    count: int
    of: int
    share: float | None
    low: float | None
    high: float | None

    @classmethod
    def make(cls, count: int, of: int) -> Share:
        if of == 0:
            return cls(count, of, None, None, None)
        share = count / of
        centre = (share + _Z**2 / (2 * of)) / (1 + _Z**2 / of)
        reach = _Z / (1 + _Z**2 / of) * sqrt(share * (1 - share) / of + _Z**2 / (4 * of**2))
        return cls(count, of, share, max(0.0, centre - reach), min(1.0, centre + reach))


@dataclass(frozen=True, slots=True)
class Turnaround:
    """Hours from request to release."""

    urgency: Urgency
    released: int
    median_h: float | None
    in_time: Share


@dataclass(frozen=True, slots=True)
class KnownAnswerResult:
    """How one person did on planted probes: right when the right subject, and nobody else, is a possible match."""

    examiner: str
    right: Share


@dataclass(frozen=True, slots=True)
class ExaminerFigures:
    examiner: str
    signed: int
    open: int
    agreement: Share
    median_view_s: float | None


@dataclass(frozen=True, slots=True)
class TrainingRow:
    training: Training
    is_current: bool
    expires_soon: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """A force's figures. Shares come with denominators and intervals; planted probes count only as such."""

    by_state: Mapping[str, int]
    overdue: int
    turnaround: Sequence[Turnaround]
    agreement: Share
    examiners: Sequence[ExaminerFigures]
    with_name: Share
    with_name_by_quality: Mapping[str, Share]
    unsuitable: Share
    outcomes: Mapping[str, int]
    known_answers: Sequence[KnownAnswerResult]
    trainings: Sequence[TrainingRow]


class Supervision:
    """For supervisors of a force, about that force alone."""

    def __init__(self, book: Casebook) -> None:
        self._book = book

    def figures(self, caller: Caller) -> Figures:
        """Raises Forbidden, AuditUnavailable."""
        self._consult(caller)
        store, now = self._book.store, self._book.clock.now()
        found = store.list(CaseFilter(caller.force, limit=_ALL))
        everything = [case for case in found if told_to(case, caller, now)]
        examinations = store.examinations_of_force(caller.force)
        real = [case for case in everything if not _is_known_planted(case)]
        pairs = _pairs(examinations, {case.request_id for case in everything})
        decided = [case for case in real if case.release is not None]
        return Figures(
            by_state=Counter(case.state.value for case in everything),
            overdue=sum(now > case.due_at and case.release is None and case.state not in _ENDED for case in real),
            turnaround=[_turnaround(urgency, decided) for urgency in Urgency],
            agreement=_agreement(pairs.values()),
            examiners=_examiners(examinations, pairs.values()),
            with_name=_named(decided),
            with_name_by_quality={band: _named([c for c in decided if _band(c) == band]) for band in BANDS},
            unsuitable=Share.make(sum(case.state is CaseState.UNSUITABLE for case in real), len(real)),
            outcomes=Counter(case.outcome.kind.value for case in real if case.outcome is not None),
            known_answers=_known_answers(everything, examinations),
            trainings=self._rows(caller),
        )

    def trainings(self, caller: Caller) -> Sequence[TrainingRow]:
        """The newest record of everybody in the force."""
        self._consult(caller)
        return self._rows(caller)

    def record_training(
        self,
        caller: Caller,
        person_id: str,
        *,
        course: str,
        certificate: str,
        trained_on: date,
        expires_on: date,
    ) -> Training:
        """Record a person's training. Nobody records their own. Raises Forbidden, InvalidRequest."""
        about = About((f"person:{person_id[:128]}",))
        try:
            require_role(caller, SUPERVISOR, ADMINISTRATOR)
            if is_same_person(person_id, caller.person_id):
                raise Forbidden(
                    "Nobody records their own training.",
                    advice="Another supervisor has to do it.",
                    context={"reasons": ["own_training"]},
                )
            training = self._training(caller, person_id, course, certificate, (trained_on, expires_on))
        except CallerError as error:
            self._book.trail.refused(caller.principal, RECORD_TRAINING, about, error)
            raise
        with self._book.trail.act(caller.principal, RECORD_TRAINING, about) as act:
            act.details |= {"trained_on": trained_on.isoformat(), "expires_on": expires_on.isoformat()}
            with act.settling() as settles:
                self._book.store.put_training(training, settles)
        return training

    def _training(
        self, caller: Caller, person_id: str, course: str, certificate: str, days: tuple[date, date]
    ) -> Training:
        trained_on, expires_on = days
        now = self._book.clock.now()
        if not trained_on <= now.date() or not trained_on < expires_on:
            raise InvalidRequest("The training lies in the past and ends after it.", advice="Check both days.")
        if not 0 < len(person_id) <= 128 or not person_id.isprintable():
            raise InvalidRequest("`person_id` is 1 to 128 printable characters.", advice="Give the id in the token.")
        return Training(
            person_id=person_id,
            force=caller.force,
            course=prose("course", course),
            certificate=prose("certificate", certificate, at_least=1),
            trained_on=trained_on,
            expires_on=expires_on,
            recorded_by=caller.person_id,
            recorded_at=now,
        )

    def _consult(self, caller: Caller) -> None:
        about = About((f"figures:{caller.force}",))
        try:
            require_role(caller, SUPERVISOR)
        except CallerError as error:
            self._book.trail.refused(caller.principal, SEE_FIGURES, about, error)
            raise
        self._book.trail.consulted(caller.principal, SEE_FIGURES, about)

    def _rows(self, caller: Caller) -> Sequence[TrainingRow]:
        today = self._book.clock.now().date()
        return [
            TrainingRow(one, one.is_current(today), one.is_current(today) and one.expires_on <= today + _EXPIRES_SOON)
            for one in self._book.store.trainings(caller.force)
        ]


_ENDED = frozenset({CaseState.RETURNED, CaseState.UNSUITABLE, CaseState.WITHDRAWN, CaseState.CLOSED})
_Pair = tuple[Examination, Examination]


def _pairs(examinations: Sequence[Examination], request_ids: set[str]) -> dict[str, _Pair]:
    """First and second examination of each case in which both are signed."""
    by_case: dict[str, list[Examination]] = {}
    for one in examinations:
        if one.signature is not None and one.request_id in request_ids:
            by_case.setdefault(one.request_id, []).append(one)
    return {
        request_id: (found[0], found[1])
        for request_id, signed in by_case.items()
        if len(found := sorted(signed, key=lambda one: one.ordinal)) == 2
    }


def _agreement(pairs: Iterable[_Pair]) -> Share:
    agreed = [agree(first.findings(), second.findings()) for first, second in pairs]
    return Share.make(sum(agreed), len(agreed))


def _examiners(examinations: Sequence[Examination], pairs: Iterable[_Pair]) -> list[ExaminerFigures]:
    both = list(pairs)
    found = []
    for examiner in sorted({one.examiner for one in examinations}):
        own = [one for one in examinations if one.examiner == examiner]
        times = [judged.viewed_s for one in own if one.signature for judged in one.standing().values()]
        found.append(
            ExaminerFigures(
                examiner=examiner,
                signed=sum(one.signature is not None for one in own),
                open=sum(one.signature is None for one in own),
                agreement=_agreement(pair for pair in both if examiner in {one.examiner for one in pair}),
                median_view_s=median(times) if times else None,
            )
        )
    return found


def _turnaround(urgency: Urgency, released: Sequence[Case]) -> Turnaround:
    of_urgency = [case for case in released if case.request.urgency is urgency]
    hours = [
        (case.release.released_at - case.requested_at).total_seconds() / 3600
        for case in of_urgency
        if case.release is not None
    ]
    in_time = sum(case.release.released_at <= case.due_at for case in of_urgency if case.release is not None)
    return Turnaround(
        urgency, len(of_urgency), round(median(hours), 2) if hours else None, Share.make(in_time, len(of_urgency))
    )


def _named(released: Sequence[Case]) -> Share:
    return Share.make(sum(bool(case.release.names) for case in released if case.release is not None), len(released))


def _band(case: Case) -> str:
    """The best band of what was searched: what the search could have found it by."""
    searched = {record.probe_id for record in case.searches}
    bands = [
        quality_band(probe.faces[probe.face])
        for probe in case.probes
        if probe.probe_id in searched and probe.face is not None
    ]
    return min(bands, key=BANDS.index, default="low")


def _is_known_planted(case: Case) -> bool:
    """Planted, and everybody may know it. Until then it counts like any other: a figure that one request does not move,
    or that moves when somebody signs, would tell a supervisor who may yet review it which one it is."""
    return case.known_answer is not None and case.state in _ENDED


def _known_answers(everything: Sequence[Case], examinations: Sequence[Examination]) -> list[KnownAnswerResult]:
    planted = {case.request_id: case for case in everything if _is_known_planted(case)}
    tally: dict[str, list[bool]] = {}
    for one in examinations:
        case = planted.get(one.request_id)
        if case is not None and one.signature is not None:
            tally.setdefault(one.examiner, []).append(_is_right(case, one))
    return [KnownAnswerResult(who, Share.make(sum(found), len(found))) for who, found in sorted(tally.items())]


def _is_right(case: Case, examination: Examination) -> bool:
    known = case.known_answer
    named = {
        (candidate.owner, candidate.subject_id)
        for candidate_id, finding in examination.findings().items()
        if finding is Finding.POSSIBLE_MATCH and (candidate := case.candidate(candidate_id)) is not None
    }
    return known is not None and named == ({known.subject} if known.subject is not None else set())
