"""The use case of the platform: a probe is searched in the permitted parts of the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
import structlog

from services.rpc.v1 import audit_pb2
from services.search.identification.acceptance import MAX_KEY_CHARS, Acceptance, Accepted
from services.search.identification.answer import SearchOutcome, answer_document, with_timings
from services.search.identification.closing import Closing
from services.search.identification.evidence import Analyser, FilmEvidence, PendingAnalysis, begin_analysis, of_model
from services.search.identification.faces import choose_face, without_chips
from services.search.identification.matching import Found, Matching
from services.search.identification.near_duplicates import NearDuplicates
from services.search.identification.requests import ImageNature, SearchMode
from services.search.identification.standing import StandingPermission
from services.search.identification.trail import SEARCH, SearchTrail
from services.search.ports import NewSearch, SearchScope, SearchStatus, SearchStore
from services.search.shadow.searching import Answered, ShadowSearches
from services.search.upkeep.ledger_counts import LedgerCounts
from services.shared import tracing
from services.shared.biometric import ImageAnalysis
from services.shared.clock import Clock
from services.shared.errors import (
    AuditUnavailable,
    CallerError,
    Conflict,
    DependencyUnavailable,
    IntegrityError,
    InvalidRequest,
    LikenessError,
    error_from_code,
)
from services.shared.ids import new_id
from services.shared.multipart import Upload
from services.shared.ports.image_store import ImageStore
from services.shared.telemetry import Metrics
from services.shared.tokens import Principal

SEAL_TIMEOUT_S = 5.0
_EMBED_STAGES = ("gate", "detect", "template")


@dataclass(frozen=True, slots=True)
class _Running:
    """An opened search and what goes on beside it."""

    search: NewSearch
    accepted: Accepted
    analysing: PendingAnalysis
    sealing: Future[str]
    started_s: float
    evidence: FilmEvidence | None


class Identify:
    """Searches a probe. The steps, in the order of their effects:

    1. the request is complete, the policy permits it, the gallery is whole: else refused, and the refusal recorded;
    2. the search is stored as open, then its audit intent is durable; meanwhile the image is analysed and sealed;
    3. the caller's face is taken, or the only one, unless too many like it were searched already;
    4. the permitted partitions, and nothing else, are searched, and the permission is looked at again;
    5. the answer is stored and its outcome recorded, at the same time; both are durable before it is returned.

    Every opened search has one terminal audit entry: DONE, REFUSED (the caller can mend it), FAILED, or UNKNOWN where
    the service stopped. Safe for several threads.
    """

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        embed: Analyser,
        matching: Matching,
        store: SearchStore,
        probes: ImageStore,
        trail: SearchTrail,
        closing: Closing,
        counts: LedgerCounts,
        near_duplicates: NearDuplicates,
        clock: Clock,
        metrics: Metrics,
        executor: Executor,
        standing: StandingPermission,
        shadow: ShadowSearches | None = None,
    ) -> None:
        self._accept = acceptance
        self._embed = embed
        self._match = matching
        self._store = store
        self._probes = probes
        self._trail = trail
        self._closing = closing
        self._counts = counts
        self._near_duplicates = near_duplicates
        self._clock = clock
        self._metrics = metrics
        self._executor = executor
        self._standing = standing
        self._shadow = shadow
        for outcome in ("done", "refused", "failed"):
            metrics.search_requests_total.labels(outcome)  # from nought, so that the first failure is an increase

    def __call__(
        self,
        principal: Principal,
        upload: Upload,
        idempotency_key: str | None = None,
        evidence: FilmEvidence | None = None,
    ) -> bytes:
        """The JSON of the answer. With `evidence` the probe is the first of several stills of one face, all of which
        count. Raises every error that services/search/http_api.py documents."""
        try:
            answer = self._identify(principal, upload, idempotency_key, evidence)
        except LikenessError as error:
            self._count(error)
            raise
        except Exception:
            self._metrics.search_requests_total.labels("failed").inc()
            raise
        self._metrics.search_requests_total.labels("done").inc()
        return answer

    def reject(self, principal: Principal, error: CallerError) -> NoReturn:
        """Record and raise what made an upload unreadable. Raises AuditUnavailable instead when it cannot."""
        self._count(error)
        self._refuse(principal, error, {})
        raise error

    def require_still(self, principal: Principal, document: Mapping[str, Any]) -> None:
        """The last look at an answer that has waited, for other searches or for partners, before it leaves with them.

        `document` is the answer. Raises Forbidden, recorded, where a permission that it rests on has ended meanwhile.
        """
        try:
            self._standing.require_of(principal, document)
        except CallerError as error:
            self._trail.withheld_again(principal, document, error)
            raise

    def _identify(
        self, principal: Principal, upload: Upload, idempotency_key: str | None, evidence: FilmEvidence | None
    ) -> bytes:
        started_s = self._clock.monotonic_s()
        try:
            accepted = self._accept(principal, upload, idempotency_key)
        except CallerError as error:
            self._refuse(principal, error, upload.texts)
            raise
        embed = of_model(self._embed, accepted.model_id)
        analysing = begin_analysis(embed, accepted.probe, accepted.request.face, evidence)
        try:
            sealing = self._executor.submit(self._probes.put, accepted.probe)
            search = accepted.open()
            with self._closing.running(search.search_id):
                earlier = self._open(search, upload.texts)
                if earlier is not None:
                    return earlier
                return self._complete(_Running(search, accepted, analysing, sealing, started_s, evidence))
        finally:
            analysing.cancel()  # changes nothing once it has ended

    def _open(self, search: NewSearch, texts: Mapping[str, Sequence[str]]) -> bytes | None:
        """Store the search as open, or give again what its idempotency key had before."""
        try:
            return self._open_or_find(search)
        except CallerError as error:
            self._refuse(search.principal, error, texts)
            raise

    def _open_or_find(self, search: NewSearch) -> bytes | None:
        try:
            earlier = self._store.open(search)
        except Conflict as error:
            if error.code != "search_running":
                raise
            # It may have ended here a moment ago, which the store learns with the next flush.
            self._closing.flush()
            earlier = self._store.open(search)
        if earlier is None:
            return None
        if earlier.result is None:
            raise _problem_again(earlier.problem or {})
        self._standing.require(search.principal, earlier.result)
        self._trail.viewed(search.principal, new_id(), earlier)
        return with_timings(earlier.result, earlier.timings_ms)

    def _complete(self, running: _Running) -> bytes:
        """Run an opened search to its one outcome."""
        try:
            return self._perform(running)
        except LikenessError as error:
            self._end(running.search, error)
            raise
        except Exception:
            self._end(running.search, LikenessError("An internal error; it has been logged."))
            raise

    def _perform(self, running: _Running) -> bytes:
        search, accepted = running.search, running.accepted
        intent_s = self._clock.monotonic_s()
        with tracing.stage("audit"):
            self._trail.intend(search, accepted.decision, running.evidence)
        audit_ms = self._ms_since(intent_s)
        analysis = running.analysing.result()
        face_index, template = choose_face(analysis, search.request.face)
        self._near_duplicates.check(search.principal, search.request, template.vector, template.model_id)
        gallery_s = self._clock.monotonic_s()
        with tracing.stage("gallery"):
            found = self._match(accepted, template)
        gallery_ms = self._ms_since(gallery_s)
        outcome = self._outcome(running, analysis, face_index, found)
        result = orjson.dumps(answer_document(outcome))
        _require_sealed(running.sealing, search.probe_sha256)
        recording = self._executor.submit(tracing.carried(self._record_done), search, outcome, result)
        self._store.finish(search.search_id, result, outcome.candidates, analysis.model.model_id)
        audit_ms += recording.result()
        self._require_still_permitted(search, accepted, found)
        timings = {stage: analysis.timings_ms[stage] for stage in _EMBED_STAGES}
        timings |= {"gallery": gallery_ms, "audit": audit_ms, "total": self._ms_since(running.started_s)}
        self._closing.confirm(search.search_id, timings)
        self._observe(timings)
        if self._shadow is not None:
            self._shadow.offer(_answered(running, outcome))
        return with_timings(result, timings)

    def _require_still_permitted(self, search: NewSearch, accepted: Accepted, found: Found) -> None:
        """The last look before the answer leaves. What the log says was given then gets an entry that it was not.

        Raises Forbidden, AuditUnavailable.
        """
        try:
            self._accept.require_still(accepted, found.decision)
        except CallerError as error:
            self._trail.withheld(search, error)
            raise

    def _outcome(self, running: _Running, analysis: ImageAnalysis, face_index: int, found: Found) -> SearchOutcome:
        search = running.search
        return SearchOutcome(
            search_id=search.search_id,
            request=search.request,
            probe_sha256=search.probe_sha256,
            opened_at=search.opened_at,
            analysis=analysis,
            face_index=face_index,
            decision=found.decision,
            scopes=found.scopes,
            candidates=found.candidates,
            searchable=found.compared,
            unsearchable=self._unsearchable(running.accepted, found),
            gallery_name=found.gallery_name,
            operating_points=running.accepted.operating_points,
            calibrations=running.accepted.calibrations,
            snapshot=found.snapshot,
            index=found.index,
            face_chosen_by=search.request.face_chosen_by or search.principal.person_id,
            film=None if running.evidence is None else running.evidence.document(),
        )

    def _unsearchable(self, accepted: Accepted, found: Found) -> int | None:
        """Of the owners searched, and of those who would have been if any reference of theirs could be."""
        open_to_all = {scope.watchlist_id for scope in found.decision.scopes if scope.owners is None}
        scopes = [
            SearchScope(scope.watchlist_id, scope.owners | self._without_any(accepted, scope))
            if scope.watchlist_id in open_to_all
            else scope
            for scope in found.scopes
        ]
        return self._counts.unsearchable(scopes)

    def _without_any(self, accepted: Accepted, searched: SearchScope) -> frozenset[str]:
        others = self._counts.owners(searched.watchlist_id) - searched.owners
        return self._accept.permitted_owners(accepted, searched.watchlist_id, others) if others else others

    def _record_done(self, search: NewSearch, outcome: SearchOutcome, result: bytes) -> float:
        """Returns the milliseconds that it took. Raises AuditUnavailable, also when another outcome came first."""
        started_s = self._clock.monotonic_s()
        try:
            with tracing.stage("audit"):
                self._trail.done(search, outcome, result)
        except Conflict as error:
            # The search took so long that another process held it for lost.
            raise AuditUnavailable(
                "The search took too long and was given up; nothing is disclosed.", advice="Search again."
            ) from error
        return self._ms_since(started_s)

    def _end(self, search: NewSearch, error: LikenessError) -> None:
        """Store and record why an opened search has no answer.

        What cannot be stored or recorded now is left to the sweep. Raises AuditUnavailable in place of the error when
        the outcome could not be recorded; where that is the error already, the log is not waited for a second time.
        """
        status, phase = SearchStatus.FAILED, audit_pb2.FAILED
        if error.caller_fault:
            status, phase = SearchStatus.REFUSED, audit_pb2.REFUSED
        try:
            self._store.stop(search.search_id, status, _problem(error))
            is_stored = True
        except DependencyUnavailable as fault:
            structlog.get_logger().warning("search_left_open", search_id=search.search_id, detail=fault.detail)
            is_stored = False
        if isinstance(error, AuditUnavailable):
            return
        try:
            self._trail.ended(search, phase, error.code)
        except Conflict:
            structlog.get_logger().info("search_outcome_stands", search_id=search.search_id)
        if is_stored:
            self._closing.confirm(search.search_id)

    def _refuse(self, principal: Principal, error: CallerError, texts: Mapping[str, Sequence[str]]) -> None:
        """Record a request that was never begun. Raises AuditUnavailable."""
        about = {
            name: values[0]
            for name in ("purpose", "case_reference")
            if (values := texts.get(name)) and values[0].isprintable() and len(values[0]) <= MAX_KEY_CHARS
        }
        # Of the closed list alone: what else was sent there is nobody's word.
        nature = next((value.strip() for value in texts.get("nature", ()) if value.strip() in set(ImageNature)), None)
        if nature is not None:
            about["nature"] = nature
        self._trail.refused(principal, SEARCH, new_id(), error, about)

    def _count(self, error: LikenessError) -> None:
        self._metrics.search_requests_total.labels("refused" if error.caller_fault else "failed").inc()
        if error.caller_fault:
            self._metrics.search_refusals_total.labels(error.code).inc()

    def _observe(self, timings_ms: Mapping[str, float]) -> None:
        for stage, duration_ms in timings_ms.items():
            self._metrics.search_stage_seconds.labels(stage).observe(duration_ms / 1000)

    def _ms_since(self, started_s: float) -> float:
        return (self._clock.monotonic_s() - started_s) * 1000


def _answered(running: _Running, outcome: SearchOutcome) -> Answered:
    """What a shadow search needs of a search that was answered."""
    request = outcome.request
    if running.evidence is not None:
        why_not = "several_stills"
    elif request.mode is not SearchMode.INVESTIGATION:
        why_not = "identification_mode"
    else:
        why_not = ""
    return Answered(
        model_id=outcome.analysis.model.model_id,
        probe=running.accepted.probe,
        face_index=outcome.face_index,
        face_box=outcome.analysis.faces[outcome.face_index].box,
        scopes=outcome.scopes,
        candidates=outcome.candidates,
        wanted=request.max_candidates,
        not_comparable=why_not,
    )


def _problem(error: LikenessError) -> dict[str, Any]:
    return {"code": error.code, "detail": error.detail, "advice": error.advice, "context": without_chips(error.context)}


def _problem_again(problem: Mapping[str, Any]) -> LikenessError:
    code, detail, advice = (str(problem.get(name, "")) for name in ("code", "detail", "advice"))
    known = error_from_code(code, detail, advice, problem.get("context"))
    return known or InvalidRequest(detail, advice=advice, code=code)


def _require_sealed(sealing: Future[str], probe_sha256: str) -> None:
    """The probe is stored, and as it was received."""
    try:
        sealed = sealing.result(SEAL_TIMEOUT_S)
    except TimeoutError as error:
        raise DependencyUnavailable(
            "The probe could not be stored in time.", advice="Try again; operators: check the probe store."
        ) from error
    if sealed != probe_sha256:
        raise IntegrityError("The probe was stored as something else.", advice="Operators: check the probe store.")
