"""The REST API of the unit's own work: thin, every decision is a use case's. The console calls the same use cases."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import TypeAdapter

from services.review.api_models import (
    ArbitrationBody,
    AssessmentBody,
    DisclosureBody,
    EnhancementBody,
    FacesBody,
    JudgementBody,
    PicksBody,
    Reasoned,
    ReleaseBody,
    SearchBody,
    UnsolvedBody,
    Versioned,
)
from services.review.callers import calling
from services.review.casework.caller import Caller
from services.review.casework.comparison import Comparison, OpenedCandidate
from services.review.casework.deciding import Disagreement
from services.review.casework.desk import Desk
from services.review.casework.films import FilmView
from services.review.casework.looking import CaseRow, CaseView
from services.review.casework.probes import Picture
from services.review.http_api import pdf
from services.review.model import Case, EnhancementStep, FeatureRemark
from services.review.partners import before_judgement
from services.shared.clock import rfc3339
from services.shared.tokens import TokenVerifier

_ROWS = TypeAdapter(list[CaseRow])
_VIEW = TypeAdapter(CaseView)
_COMPARISON = TypeAdapter(Comparison)
_OPENED = TypeAdapter(OpenedCandidate)
_FILM = TypeAdapter(FilmView)
_DISAGREEMENT = TypeAdapter(Disagreement)
_JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "the picture"}}


def create_casework_router(desk: Desk, verifier: TokenVerifier) -> APIRouter:
    """Routes under `/v1/casework`."""
    router = APIRouter(prefix="/v1/casework", tags=["casework"])
    caller = calling(verifier)
    who = Annotated[Caller, Depends(caller)]
    _add_work(router, desk, who)
    _add_judging(router, desk, who)
    _add_pictures(router, desk, who)
    return router


def _add_work(router: APIRouter, desk: Desk, who_type: Any) -> None:
    @router.get("/queue", summary="What waits, most pressing first")
    def queue(who: who_type) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = _ROWS.dump_python(list(desk.looking.queue(who)), mode="json")
        return rows

    @router.get("/{request_id}", summary="A case, without what you must not know yet")
    def see(who: who_type, request_id: str) -> dict[str, Any]:
        return _dumped(_VIEW, desk.looking.case(who, request_id))

    @router.post("/{request_id}/acceptance", summary="Triage: accept")
    def accept(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        return _moved(desk.triage.accept(who, request_id, body.version, body.reason))

    @router.post("/{request_id}/return", summary="Triage: send back")
    def send_back(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        return _moved(desk.triage.send_back(who, request_id, body.version, body.reason))

    @router.post("/{request_id}/assessment", summary="Choose a face and grade the probe")
    def assess(who: who_type, request_id: str, body: AssessmentBody) -> dict[str, Any]:
        case = desk.probes.assess(
            who,
            request_id,
            body.version,
            probe_id=body.probe_id,
            face=body.face,
            grade=body.grade,
            remarks=body.remarks,
        )
        return _moved(case)

    @router.post("/{request_id}/unsuitability", summary="No picture can be searched")
    def unsuitable(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        return _moved(desk.probes.call_unsuitable(who, request_id, body.version, body.reason))

    @router.post("/{request_id}/enhancements", summary="Make a working copy by a recorded recipe")
    def enhance(who: who_type, request_id: str, body: EnhancementBody) -> dict[str, Any]:
        steps = [EnhancementStep(step.kind, step.amounts) for step in body.steps]
        case = desk.probes.enhance(
            who, request_id, body.version, probe_id=body.probe_id, steps=steps, reason=body.reason
        )
        made = next(probe for probe in case.probes if probe.probe_id == body.probe_id).enhancements[-1]
        return {**_moved(case), "enhancement_id": made.enhancement_id, "sha256": made.sha256}

    @router.post("/{request_id}/searches", summary="Search the original, and a working copy beside it")
    def search(who: who_type, request_id: str, body: SearchBody) -> dict[str, Any]:
        case = desk.searching(
            who,
            request_id,
            body.version,
            probe_id=body.probe_id,
            enhancement_id=body.enhancement_id,
            reason=body.reason,
            max_candidates=body.max_candidates,
            partners=body.partners,
            authority=body.authority,
        )
        shown = before_judgement(case.enquiries, is_planted=case.known_answer is not None)
        asked = [{"partner": one.partner, "status": one.status} for one in shown]
        return {**_moved(case), "candidates": len(case.candidates), "partners": asked}

    @router.post("/{request_id}/faces", summary="Make probes of further people in a picture")
    def pick_faces(who: who_type, request_id: str, body: FacesBody) -> dict[str, Any]:
        case = desk.probes.pick_faces(who, request_id, body.version, probe_id=body.probe_id, faces=body.faces)
        return {**_moved(case), "probes": [probe.probe_id for probe in case.probes[-len(set(body.faces)) :]]}

    _add_flagged(router, desk, who_type)

    _add_films(router, desk, who_type)


def _add_films(router: APIRouter, desk: Desk, who_type: Any) -> None:
    base = "/{request_id}/films/{film_id}"

    @router.post(base + "/reading", summary="Have a film read: its people found and followed")
    def read(who: who_type, request_id: str, film_id: str, body: Versioned) -> dict[str, Any]:
        return _moved(desk.films.read(who, request_id, body.version, film_id))

    @router.get(base, summary="How far a film is, and who is in it")
    def see(who: who_type, request_id: str, film_id: str) -> dict[str, Any]:
        view = desk.films.see(who, request_id, film_id, with_chips=False)
        seen = _dumped(_FILM, view)
        return {name: value for name, value in seen.items() if name != "case"}

    @router.post(base + "/picks", summary="Make probes of people in a film")
    def pick(who: who_type, request_id: str, film_id: str, body: PicksBody) -> dict[str, Any]:
        case = desk.films.pick(who, request_id, body.version, film_id, body.tracks)
        return {**_moved(case), "probes": [probe.probe_id for probe in case.probes[-len(set(body.tracks)) :]]}


def _add_flagged(router: APIRouter, desk: Desk, who_type: Any) -> None:
    @router.post("/{request_id}/probe-permission", summary="Allow a flagged probe (supervisors)")
    def allow(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        """Its candidates may then be judged. The supervisor is not the requester and has not searched it."""
        return _moved(desk.flagged.allow(who, request_id, body.version, body.reason))

    @router.post("/{request_id}/probe-refusal", summary="Refuse a flagged probe (supervisors)")
    def refuse(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        """Ends the case as not suitable; the requester reads the reason."""
        return _moved(desk.flagged.refuse(who, request_id, body.version, body.reason))


def _add_judging(router: APIRouter, desk: Desk, who_type: Any) -> None:
    @router.post("/{request_id}/examination", summary="Take the first or the second review on")
    def begin(who: who_type, request_id: str, body: Versioned) -> dict[str, Any]:
        return _dumped(_COMPARISON, desk.examining.begin(who, request_id, body.version))

    @router.get("/{request_id}/examination", summary="Your own examination")
    def comparison(who: who_type, request_id: str) -> dict[str, Any]:
        return _dumped(_COMPARISON, desk.examining.comparison(who, request_id))

    @router.post("/{request_id}/candidates/{candidate_id}/opening", summary="Begin to look at a candidate")
    def open_candidate(who: who_type, request_id: str, candidate_id: str) -> dict[str, Any]:
        return _dumped(_OPENED, desk.examining.open(who, request_id, candidate_id))

    @router.put("/{request_id}/candidates/{candidate_id}/finding", summary="Judge a candidate")
    def judge(who: who_type, request_id: str, candidate_id: str, body: JudgementBody) -> dict[str, Any]:
        features = [FeatureRemark(one.feature, one.observation, one.remark) for one in body.features]
        made = desk.examining.judge(
            who,
            request_id,
            body.version,
            candidate_id=candidate_id,
            finding=body.finding,
            features=features,
            remarks=body.remarks,
        )
        return _dumped(_COMPARISON, made)

    @router.post("/{request_id}/candidates/{candidate_id}/undo", summary="Take a judgement back, until signed")
    def undo(who: who_type, request_id: str, candidate_id: str, body: Versioned) -> dict[str, Any]:
        return _dumped(_COMPARISON, desk.examining.undo(who, request_id, body.version, candidate_id))

    @router.post("/{request_id}/signature", summary="Sign your judgement of every candidate")
    def sign(who: who_type, request_id: str, body: Versioned) -> dict[str, Any]:
        return _moved(desk.examining.sign(who, request_id, body.version))

    @router.get("/{request_id}/disagreement", summary="Both judgements, where they differ (supervisors)")
    def disagreement(who: who_type, request_id: str) -> dict[str, Any]:
        return _dumped(_DISAGREEMENT, desk.deciding.disagreement(who, request_id))

    @router.post("/{request_id}/arbitration", summary="Decide a disagreement (supervisors)")
    def arbitrate(who: who_type, request_id: str, body: ArbitrationBody) -> dict[str, Any]:
        case = desk.deciding.arbitrate(who, request_id, body.version, findings=body.findings, reasons=body.reasons)
        return _moved(case)

    @router.post("/{request_id}/release", summary="Release the result to the requesting force")
    def release(who: who_type, request_id: str, body: ReleaseBody) -> dict[str, Any]:
        return _moved(desk.deciding.release(who, request_id, body.version, body.retain_until))

    @router.post("/{request_id}/unsolved", summary="Keep the probe in the unsolved file")
    def keep(who: who_type, request_id: str, body: UnsolvedBody) -> dict[str, Any]:
        case = desk.retention.keep_unsolved(
            who, request_id, body.version, authority=body.authority, reason=body.reason, expires_on=body.expires_on
        )
        return _moved(case)

    @router.post("/{request_id}/closing", summary="End an entry of the unsolved file")
    def close(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        return _moved(desk.retention.close(who, request_id, body.version, body.reason))

    @router.post("/{request_id}/search-again", summary="Search an unsolved probe again")
    def search_again(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        """Who was judged before is not judged again; for somebody new a case is opened that continues this one."""
        done = desk.retention.search_again(who, request_id, body.version, body.reason)
        opened = done.continuation.request_id if done.continuation is not None else None
        return {**_moved(done.case), "continuation": opened}

    @router.post("/{request_id}/erasure", summary="Erase the pictures of a case whose time is over")
    def erase(who: who_type, request_id: str, body: Reasoned) -> dict[str, Any]:
        return _moved(desk.retention.erase(who, request_id, body.version, body.reason))


def _add_pictures(router: APIRouter, desk: Desk, who_type: Any) -> None:
    @router.get("/{request_id}/probes/{probe_id}/{variant}", summary="A probe's picture", responses=_JPEG)
    def probe(who: who_type, request_id: str, probe_id: str, variant: str) -> Response:
        """`variant` is `original` or the id of a working copy. Looking is recorded."""
        return _picture(desk.pictures.probe(who, request_id, probe_id, variant))

    @router.get(
        "/{request_id}/candidates/{candidate_id}/references/{reference_id}",
        summary="An enrolled picture of a candidate",
        responses=_JPEG,
    )
    def reference(who: who_type, request_id: str, candidate_id: str, reference_id: str) -> Response:
        return _picture(desk.pictures.reference(who, request_id, candidate_id, reference_id))

    @router.post("/{request_id}/disclosure-approvals", status_code=201, summary="Let the full pack go to a recipient")
    def approve_disclosure(who: who_type, request_id: str, body: DisclosureBody) -> dict[str, Any]:
        """For supervisors. Somebody else fetches the pack with it, once, within 24 hours."""
        made = desk.documents.approve_disclosure(who, request_id, body.recipient, body.reason)
        return {**made.told(), "approved_at": rfc3339(made.approved_at), "expires_at": rfc3339(made.expires_at)}

    @router.get("/{request_id}/disclosure.pdf", summary="The full pack for disclosure, with its negatives")
    def disclosure(
        who: who_type,
        request_id: str,
        approval: Annotated[str, Query(max_length=64, description="Of a supervisor other than you.")] = "",
    ) -> Response:
        """Every page names the recipient that was approved."""
        return pdf(desk.documents.disclosure(who, request_id, approval), "disclosure")

    @router.get("/{request_id}/judgements", summary="What was signed, with every remark, for the bundle of a search")
    def judgements(who: who_type, request_id: str) -> list[dict[str, Any]]:
        """SHA-256 of the canonical form (RFC 8785) of each is the `judgement_sha256` of its entry in the audit log."""
        return [dict(one) for one in desk.documents.judgements(who, request_id)]


def _picture(picture: Picture) -> Response:
    headers = {"Content-Security-Policy": "default-src 'none'; sandbox"}
    return Response(picture.content, media_type=picture.media_type, headers=headers)


def _moved(case: Case) -> dict[str, Any]:
    return {"request_id": case.request_id, "state": case.state.value, "version": case.version}


def _dumped(adapter: TypeAdapter[Any], value: object) -> dict[str, Any]:
    dumped: dict[str, Any] = adapter.dump_python(value, mode="json")
    return dumped
