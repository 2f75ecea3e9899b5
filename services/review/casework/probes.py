"""Triage and the probe: may it be searched, is it good enough, what is done to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from threading import BoundedSemaphore

from services.review import enhancement
from services.review.casework.caller import Caller
from services.review.casework.films import MAX_PROBES
from services.review.casework.forms import prose
from services.review.casework.steps import Casebook, Step
from services.review.model import (
    Assessment,
    Case,
    Enhancement,
    EnhancementStep,
    ProbeImage,
    Suitability,
    Triage,
)
from services.review.ports import AgreementRegister
from services.review.suitability import in_words, measured
from services.review.workflow import Action
from services.shared.errors import Conflict, Forbidden, InvalidRequest, Overloaded
from services.shared.ids import new_id
from services.shared.originals import unscanned
from services.shared.ports.image_store import ImageStore
from services.shared.watchlists import WatchlistFile, Watchlists

MAX_COPIES = 50  # of one picture; each is a file of tens of megabytes
_AT_ONCE, _WAIT_S = 2, 10.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to be shown: JPEG of the platform's own making."""

    content: bytes
    width: int
    height: int
    media_type: str = "image/jpeg"


class TriageRequests:
    """Decides whether a request may go on. Search decides again, by its own policy, when it is asked to search."""

    def __init__(self, book: Casebook, watchlists: WatchlistFile, register: AgreementRegister) -> None:
        self._book = book
        self._watchlists = watchlists
        self._register = register

    def accept(self, caller: Caller, request_id: str, version: int, reason: str) -> Case:
        """RECEIVED to ACCEPTED. Raises Forbidden (`reasons`) where purpose, case type or agreement do not allow it."""
        with self._book.step(caller, request_id, Action.ACCEPT, version) as step:
            today = self._book.clock.now().date()
            agreements = permitted(step.case, self._watchlists.current(), self._register, today)
            triage = self._decided(caller, reason, is_accepted=True)
            return step.move(triage=replace(triage, agreements=agreements))

    def send_back(self, caller: Caller, request_id: str, version: int, reason: str) -> Case:
        """RECEIVED to RETURNED, with the reason that the requester reads."""
        with self._book.step(caller, request_id, Action.RETURN, version) as step:
            return step.move(triage=self._decided(caller, reason, is_accepted=False))

    def _decided(self, caller: Caller, reason: str, *, is_accepted: bool) -> Triage:
        return Triage(is_accepted, prose("reason", reason), caller.person_id, self._book.clock.now())


def permitted(
    case: Case, watchlists: Watchlists, register: AgreementRegister, today: date
) -> dict[str, tuple[str, ...]]:
    """The agreement of the case's force by which each watchlist may be searched; none where none is needed.

    Raises Forbidden with every reason.
    """
    denials: dict[str, str] = {}
    relied_on: dict[str, tuple[str, ...]] = {}
    for watchlist_id in case.request.watchlists:
        watchlist = watchlists.get(watchlist_id)
        if watchlist is None or case.request.purpose not in watchlist.purposes:
            denials["purpose_not_permitted"] = f"{watchlist_id} may not be searched for {case.request.purpose}."
            continue
        kind = case.request.case_type.value
        if kind not in {allowed.value for allowed in watchlist.case_types}:
            denials["case_type_not_permitted"] = f"{watchlist_id} may not be searched for a {kind}."
        if not watchlist.needs_agreement:
            continue
        own = register.find(watchlist_id, case.force, today)
        if not own:
            denials["no_agreement_in_force"] = f"Your force has no agreement in force for {watchlist_id}."
        relied_on[watchlist_id] = (own,)
    if denials:
        raise Forbidden(
            " ".join(denials.values()),
            advice="Send the request back, or have it made for what is permitted.",
            context={"reasons": sorted(denials)},
        )
    return relied_on


class Probes:
    """Grades probes and works on copies of them. The original is never altered."""

    def __init__(self, book: Casebook, images: ImageStore) -> None:
        self._book = book
        self._images = images
        self._turns = BoundedSemaphore(_AT_ONCE)

    def assess(
        self,
        caller: Caller,
        request_id: str,
        version: int,
        *,
        probe_id: str,
        face: int,
        grade: Suitability,
        remarks: str,
    ) -> Case:
        """Choose a probe's face and grade it. When every probe is graded unsuitable, the case ends as UNSUITABLE.

        A grade better than what was measured has to be explained. Raises InvalidRequest, Conflict, Forbidden.
        """
        with self._book.step(caller, request_id, Action.ASSESS, version, objects=(f"probe:{probe_id}",)) as step:
            probe = _probe(step.case, probe_id)
            assessed = replace(probe, face=face, assessment=self._assessment(caller, probe, face, grade, remarks))
            step.act.details["grade"] = grade.value
            return self._graded(step, assessed)

    def pick_faces(self, caller: Caller, request_id: str, version: int, *, probe_id: str, faces: Sequence[int]) -> Case:
        """Make a probe of its own of each of further faces of a picture: assessed, enhanced and searched alone.

        Raises InvalidRequest (no such face, none picked), Conflict (`already_picked`, `too_many_probes`).
        """
        with self._book.step(caller, request_id, Action.PICK_FACES, version, objects=(f"probe:{probe_id}",)) as step:
            probe = _probe(step.case, probe_id)
            picked = _further_faces(step.case, probe, faces)
            step.act.details["faces"] = ",".join(str(face) for face in picked)
            made = (replace(probe, probe_id=new_id(), face=face, assessment=None, enhancements=()) for face in picked)
            return step.move(probes=(*step.case.probes, *made))

    def call_unsuitable(self, caller: Caller, request_id: str, version: int, reason: str) -> Case:
        """None of the pictures can be searched, for instance because no face was found in any."""
        with self._book.step(caller, request_id, Action.CALL_UNSUITABLE, version) as step:
            triage = step.case.triage
            told = prose("reason", reason)
            return step.move(triage=replace(triage, reason=told) if triage is not None else None)

    def enhance(
        self,
        caller: Caller,
        request_id: str,
        version: int,
        *,
        probe_id: str,
        steps: Sequence[EnhancementStep],
        reason: str,
    ) -> Case:
        """A working copy made by a recorded recipe from the original's own. Needs a reason. Raises InvalidRequest,
        Conflict (`too_many_copies`), Overloaded."""
        with self._book.step(caller, request_id, Action.ENHANCE, version, objects=(f"probe:{probe_id}",)) as step:
            probe = _probe(step.case, probe_id)
            if len(probe.enhancements) >= MAX_COPIES:
                raise Conflict(
                    f"The picture has {MAX_COPIES} working copies.",
                    advice="Search with one of them, or hand the picture in again.",
                    code="too_many_copies",
                )
            with self._turn():
                content, width, height = enhancement.apply(self._images.get(probe.working_sha256), steps)
            made = Enhancement(
                enhancement_id=new_id(),
                steps=tuple(steps),
                reason=prose("reason", reason),
                sha256=unscanned(self._images).put(content),
                width=width,
                height=height,
                made_by=caller.person_id,
                made_at=self._book.clock.now(),
            )
            step.act.details |= {
                "steps": "; ".join(enhancement.described(one) for one in steps),
                "result_sha256": made.sha256,
            }
            return step.move(probes=_with(step.case, replace(probe, enhancements=(*probe.enhancements, made))))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Few at once: each takes a processor and hundreds of megabytes. Raises Overloaded."""
        if not self._turns.acquire(timeout=_WAIT_S):
            raise Overloaded("Other working copies are being made.", advice="Try again in a few seconds.")
        try:
            yield
        finally:
            self._turns.release()

    def _assessment(self, caller: Caller, probe: ProbeImage, face: int, grade: Suitability, remarks: str) -> Assessment:
        if not 0 <= face < len(probe.faces):
            raise InvalidRequest(
                f"There is no face {face}: {len(probe.faces)} found.",
                advice="Choose one of the faces that were found.",
                context={"fields": [{"field": "face", "problem": f"{len(probe.faces)} faces were found."}]},
            )
        found = measured(probe.faces[face])
        is_better = _ORDER.index(grade) < _ORDER.index(found)
        told = prose("remarks", remarks) if is_better or grade is Suitability.UNSUITABLE else remarks.strip()[:2000]
        now = self._book.clock.now()
        return Assessment(found, grade, face, in_words(probe.faces[face]), told, caller.person_id, now)

    def _graded(self, step: Step, assessed: ProbeImage) -> Case:
        probes = _with(step.case, assessed)
        grades = [probe.assessment.grade if probe.assessment else None for probe in probes]
        # People may yet be picked from a film.
        is_hopeless = not step.case.films and all(grade is Suitability.UNSUITABLE for grade in grades)
        if is_hopeless and not step.case.searches:
            return step.move(action=Action.CALL_UNSUITABLE, probes=probes)
        return step.move(probes=probes)


_ORDER = (Suitability.SUITABLE, Suitability.CAUTION, Suitability.UNSUITABLE)


def _probe(case: Case, probe_id: str) -> ProbeImage:
    probe = case.probe(probe_id)
    if probe is None:
        raise Conflict("The request has no such picture.", advice="Look at it again.", code="no_such_probe")
    return probe


def taken_faces(case: Case, probe: ProbeImage) -> frozenset[int]:
    """Faces of the probe's picture that are chosen already, in it or in another probe of the same picture."""
    same = [one for one in case.probes if one.original.sha256 == probe.original.sha256]
    return frozenset(one.face for one in same if one.face is not None)


def _further_faces(case: Case, probe: ProbeImage, faces: Sequence[int]) -> tuple[int, ...]:
    picked = tuple(sorted(set(faces)))
    if not picked or not all(0 <= face < len(probe.faces) for face in picked):
        raise InvalidRequest(
            f"Pick faces of the picture: {len(probe.faces)} were found.",
            advice="Choose at least one of the faces that were found.",
            context={"fields": [{"field": "faces", "problem": f"{len(probe.faces)} faces were found."}]},
        )
    if taken_faces(case, probe) & set(picked):
        raise Conflict("A picked face is a probe already.", advice="Look at the case again.", code="already_picked")
    if len(case.probes) + len(picked) > MAX_PROBES:
        raise Conflict(f"A case has at most {MAX_PROBES} probes.", advice="Pick fewer.", code="too_many_probes")
    return picked


def _with(case: Case, changed: ProbeImage) -> tuple[ProbeImage, ...]:
    return tuple(changed if probe.probe_id == changed.probe_id else probe for probe in case.probes)
