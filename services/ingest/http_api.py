"""The enrolment API.

Routes that take images read their bodies themselves, after the token and the limits: see services/shared/multipart.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from services.ingest.api_models import (
    AcceptedEnrolment,
    BatchAnswer,
    BatchItem,
    BatchResult,
    Enrolment,
    EnrolmentPage,
    FoundEnrolment,
    LookupAnswer,
    LookupRequest,
    WithdrawalRequest,
)
from services.ingest.auditing import EnrolmentAudit
from services.ingest.enrolling.acceptance import AcceptEnrolments
from services.ingest.enrolling.admission import Admission
from services.ingest.enrolling.checks import CUSTODIAN, MAX_TEXT, LawfulnessChecks, require_custodian
from services.ingest.enrolling.enrolment import (
    IMAGE_FACTS,
    POSES,
    Acceptance,
    EnrolmentState,
    EnrolmentView,
    EnrolReference,
    Source,
)
from services.ingest.life.custody import BIRTH_BANDS, CustodyLedger, EnrolmentFacts
from services.ingest.life.withdrawal import WithdrawReference
from services.ingest.ports import EnrolmentFilter, EnrolmentLedger
from services.shared.errors import CallerError, Forbidden, InvalidRequest, LikenessError, NotFound, PlatformError
from services.shared.http import bearer
from services.shared.ids import is_id, new_id
from services.shared.multipart import Upload, read_multipart
from services.shared.tokens import Principal, TokenVerifier

_IMAGE = frozenset({"image"})
_BATCH_TEXT_BYTES = 256 * 1024
_ITEMS = TypeAdapter(list[BatchItem])
_FIELDS = ("watchlist", "owner", "subject_id", "lawful_basis", "captured_on")
_OPTIONAL_FIELDS = ("agreement_reference", "source", *IMAGE_FACTS)

_TEXT = {"type": "string"}
_FORM_PROPERTIES: dict[str, Any] = {
    "watchlist": {**_TEXT, "example": "custody"},
    "owner": {**_TEXT, "description": "The force whose image it is: your own.", "example": "northshire"},
    "subject_id": {**_TEXT, "description": "The owner's own identifier of the subject."},
    "lawful_basis": {**_TEXT, "example": "pace_1984_s64a"},
    "captured_on": {**_TEXT, "format": "date", "example": "2026-03-01"},
    "agreement_reference": {**_TEXT, "description": "Only where the watchlist needs an agreement; may be left out."},
    "source": {"type": "string", "enum": ["rest", "cli"], "default": "rest"},
    "pose": {"type": "string", "enum": ["", *POSES], "default": ""},
    "custody_reference": {**_TEXT, "description": "The owner's number of the custody record; may be left out."},
    "capture_device": {**_TEXT, "description": "Which camera, for the report on what cannot be searched."},
    "birth_band": {"type": "string", "enum": ["", *sorted(BIRTH_BANDS)], "default": ""},
}
_FILE = {"type": "string", "format": "binary"}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"description": "No token, or one that does not verify."},
    403: {"description": "The role custodian, the force or the watchlist is missing in the token."},
    409: {"description": "The Idempotency-Key was used for another request."},
    413: {"description": "The image is over 32 MiB."},
    422: {"description": "A field or the image is not acceptable; `code` and `advice` say which and what to do."},
    503: {"description": "The audit log or the ledger cannot be written, or too much is waiting. Nothing was stored."},
}


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_ENROLMENT_FORM = _form({"image": _FILE, **_FORM_PROPERTIES}, ["image", *_FIELDS])
_BATCH_FORM = _form(
    {
        "image": {"type": "array", "items": _FILE},
        "items": {**_TEXT, "description": "A JSON array with an object an image, in the order of the images."},
        **_FORM_PROPERTIES,
    },
    ["image", "items"],
)


@dataclass(frozen=True)
class EnrolmentApi:
    """The routes and what they need."""

    acceptance: AcceptEnrolments
    checks: LawfulnessChecks
    withdrawal: WithdrawReference
    ledger: EnrolmentLedger
    facts: CustodyLedger
    audit: EnrolmentAudit
    admission: Admission
    verifier: TokenVerifier
    batch_images: int

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/enrolments", tags=["enrolments"], responses=_PROBLEMS)
        caller = Annotated[Principal, Depends(bearer(self.verifier))]
        self._add_enrolling(router, caller)
        self._add_reading(router, caller)
        self._add_withdrawing(router, caller)
        return router

    def _add_enrolling(self, router: APIRouter, caller: Any) -> None:
        @router.post("", status_code=202, openapi_extra=_ENROLMENT_FORM, responses={200: {"model": AcceptedEnrolment}})
        async def enrol(
            request: Request,
            response: Response,
            principal: caller,
            idempotency_key: Annotated[str, Header(max_length=200)] = "",
        ) -> AcceptedEnrolment:
            """Accept an image for enrolment: 202 when it is durable, 200 when it is in the ledger already."""
            await self._require_role_first(principal)
            with self.admission.upload(_announced_bytes(request)):
                upload = await read_multipart(request, _IMAGE)
                answer = await run_in_threadpool(self._enrol, upload, principal, idempotency_key)
            response.headers["Location"] = f"/v1/enrolments/{answer.enrolment_id}"
            response.status_code = 202 if answer.is_new else 200
            return AcceptedEnrolment.of(answer)

        @router.post("/batch", openapi_extra=_BATCH_FORM)
        async def enrol_batch(request: Request, principal: caller) -> BatchAnswer:
            """Accept several images at once, each with a result of its own in the same order. For bulk loading."""
            await self._require_role_first(principal)
            with self.admission.upload(_announced_bytes(request)):
                upload = await read_multipart(request, _IMAGE, max_text_bytes=_BATCH_TEXT_BYTES)
                return await run_in_threadpool(self._enrol_batch, upload, principal)

    def _add_reading(self, router: APIRouter, caller: Any) -> None:
        @router.get("")
        def list_enrolments(
            principal: caller,
            state: EnrolmentState | None = None,
            after: Annotated[str, Query(max_length=36)] = "",
            limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        ) -> EnrolmentPage:
            """The enrolments of your force in the watchlists of your token, page by page, with counts. Recorded."""
            self._require_role(principal)
            selection = EnrolmentFilter(principal.force, principal.watchlists, state, after, limit)
            views = self.ledger.list(selection)
            self.audit.record_list("enrolment", principal, len(views))
            return EnrolmentPage(
                enrolments=[Enrolment.of(view) for view in views],
                next_after=views[-1].enrolment_id if len(views) == limit else "",
                counts=dict(self.ledger.count_states(principal.force, principal.watchlists)),
            )

        @router.post("/lookup")
        def look_up(body: LookupRequest, principal: caller) -> LookupAnswer:
            """Where up to 1,000 enrolments stand. Ids that are not there, or not yours, are left out."""
            self._require_role(principal)
            selection = EnrolmentFilter(principal.force, principal.watchlists)
            found = self.ledger.outcomes(selection, body.enrolment_ids)
            return LookupAnswer(enrolments=[FoundEnrolment.of(outcome) for outcome in found])

        @router.get("/{enrolment_id}", responses={404: {"description": "Not there, or not yours."}})
        def get_enrolment(enrolment_id: str, principal: caller) -> Enrolment:
            """One enrolment."""
            self._require_role(principal)
            return Enrolment.of(self._own(enrolment_id, principal))

    def _add_withdrawing(self, router: APIRouter, caller: Any) -> None:
        @router.post(
            "/{enrolment_id}/withdrawal", status_code=202, responses={404: {"description": "Not there, or not yours."}}
        )
        def withdraw(enrolment_id: str, body: WithdrawalRequest, principal: caller) -> AcceptedEnrolment:
            """Withdraw a reference for good. The tombstone is durable when this answers, and nothing brings it back."""
            self._require_role(principal)
            view = self._own(enrolment_id, principal)
            self.withdrawal.withdraw(view, principal, body.reason)
            return AcceptedEnrolment(enrolment_id=enrolment_id, state=EnrolmentState.WITHDRAWN)

    def _enrol(self, upload: Upload, principal: Principal, idempotency_key: str) -> Acceptance:
        command = _command(upload)
        self._check_rights(command, principal)
        _check_said(command)
        answer = self.acceptance.accept(command, principal, _source(upload), idempotency_key)
        self._note_said(command, answer)
        return answer

    def _enrol_batch(self, upload: Upload, principal: Principal) -> BatchAnswer:
        commands = self._batch_commands(upload)
        refused = {
            place: error for place, command in enumerate(commands) if (error := self._denial(command, principal))
        }
        permitted = [command for place, command in enumerate(commands) if place not in refused]
        made = self.acceptance.accept_all(permitted, principal, _source(upload))
        for command, answer in zip(permitted, made, strict=True):
            if isinstance(answer, Acceptance):
                self._note_said(command, answer)
        accepted = iter(made)
        answers = [refused.get(place) or next(accepted) for place in range(len(commands))]
        failure = answers[0]
        if isinstance(failure, PlatformError) and all(isinstance(answer, PlatformError) for answer in answers):
            raise failure
        return BatchAnswer(results=[BatchResult.of(answer) for answer in answers])

    def _batch_commands(self, upload: Upload) -> list[EnrolReference]:
        images, items = upload.files.get("image", ()), _items_of(upload)
        if len(items) != len(images) or not 1 <= len(images) <= self.batch_images:
            raise InvalidRequest(
                f"{len(images)} images and {len(items)} items.",
                advice=f"Send 1 to {self.batch_images} images and as many items, in the same order.",
            )
        shared = {name: _one_text(upload, name, "") for name in _FORM_PROPERTIES}
        return [
            EnrolReference(
                watchlist_id=item.watchlist or shared["watchlist"],
                owner=item.owner or shared["owner"],
                subject_id=item.subject_id,
                lawful_basis=item.lawful_basis or shared["lawful_basis"],
                captured_on=item.captured_on or shared["captured_on"],
                agreement_reference=item.agreement_reference or shared["agreement_reference"],
                image=image,
                said=_said({name: getattr(item, name) or shared[name] for name in IMAGE_FACTS}),
            )
            for item, image in zip(items, images, strict=True)
        ]

    def _check_rights(self, command: EnrolReference, principal: Principal) -> None:
        """Known watchlist, then the caller's right to it; a refusal is audited before it is told."""
        self.checks.known_watchlist(command.watchlist_id)
        try:
            require_custodian(principal, command.owner, command.watchlist_id)
        except Forbidden as error:
            self.audit.record_refusal(new_id(), principal, f"watchlist:{command.watchlist_id}", error.code)
            raise

    def _note_said(self, command: EnrolReference, answer: Acceptance) -> None:
        """Also of an enrolment that was known: a call that was cut off between the two is made again."""
        if command.said:
            said = {"birth_band": "", "custody_reference": "", "capture_device": "", "pose": "", **command.said}
            self.facts.note_image(EnrolmentFacts(answer.enrolment_id, is_notice_given=None, event_id="", **said))

    def _denial(self, command: EnrolReference, principal: Principal) -> LikenessError | None:
        try:
            self._check_rights(command, principal)
            _check_said(command)
        except CallerError as error:
            return error
        return None

    async def _require_role_first(self, principal: Principal) -> None:
        """In the event loop, so that who is told to come again later does not wait for a thread to hear it."""
        if CUSTODIAN not in principal.roles:
            await run_in_threadpool(self._require_role, principal)

    def _require_role(self, principal: Principal) -> None:
        if CUSTODIAN in principal.roles:
            return
        self.audit.record_refusal(new_id(), principal, "route:enrolments", Forbidden.code)
        raise Forbidden(
            "This needs the role custodian.", advice="Ask an administrator for a token with the role custodian."
        )

    def _own(self, enrolment_id: str, principal: Principal) -> EnrolmentView:
        view = self.ledger.view(enrolment_id) if is_id(enrolment_id) else None
        if view is None or view.owner != principal.force or view.watchlist_id not in principal.watchlists:
            raise NotFound("No such enrolment.", advice="Check the enrolment_id and that your token permits it.")
        return view


def _items_of(upload: Upload) -> list[BatchItem]:
    try:
        return _ITEMS.validate_json(_one_text(upload, "items", ""))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequest(
            f"`items` is not as it should be: {where} {problem['msg']}",
            advice="Send a JSON array with one object an image; /docs describes it.",
        ) from error


def _announced_bytes(request: Request) -> int:
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdigit() else 0


def _command(upload: Upload) -> EnrolReference:
    missing = [name for name in _FIELDS if not _one_text(upload, name, "")]
    images = upload.files.get("image", ())
    if len(images) != 1:
        missing.append("image")
    if missing:
        raise InvalidRequest(
            f"Missing, empty or given more than once: {', '.join(missing)}.",
            advice="Send one image and each of these fields once.",
            context={"fields": missing},
        )
    unknown = sorted(set(upload.texts) - {*_FIELDS, *_OPTIONAL_FIELDS})
    if unknown:
        raise InvalidRequest(
            f"Unknown fields: {', '.join(name[:40] for name in unknown)}.", advice="See /docs for the fields."
        )
    return EnrolReference(
        watchlist_id=_one_text(upload, "watchlist"),
        owner=_one_text(upload, "owner"),
        subject_id=_one_text(upload, "subject_id"),
        lawful_basis=_one_text(upload, "lawful_basis"),
        captured_on=_one_text(upload, "captured_on"),
        agreement_reference=_one_text(upload, "agreement_reference", ""),
        image=images[0],
        said=_said({name: _one_text(upload, name, "") for name in IMAGE_FACTS}),
    )


def _said(texts: Mapping[str, str]) -> Mapping[str, str]:
    return {name: text for name, text in texts.items() if text}


def _check_said(command: EnrolReference) -> None:
    said = command.said
    if said.get("pose", "frontal") not in POSES:
        raise InvalidRequest("There is no such pose.", advice=f"Give one of: {', '.join(POSES)}.")
    if said.get("birth_band", next(iter(BIRTH_BANDS))) not in BIRTH_BANDS:
        raise InvalidRequest("There is no such `birth_band`.", advice=f"Give one of: {', '.join(sorted(BIRTH_BANDS))}.")
    if any(len(text) > MAX_TEXT or not text.isprintable() for text in said.values()):
        raise InvalidRequest(
            "What is said of the image is too long or not printable.", advice="Send identifiers alone."
        )


def _one_text(upload: Upload, name: str, default: str | None = None) -> str:
    values = upload.texts.get(name, () if default is None else (default,))
    if len(values) != 1:
        raise InvalidRequest(f"`{name}` is given more than once.", advice="Give each field once.")
    return values[0]


def _source(upload: Upload) -> Source:
    text = _one_text(upload, "source", Source.REST.value)
    if text not in (Source.REST, Source.CLI):
        raise InvalidRequest(f"`source` cannot be {text[:40]!r}.", advice="Give rest or cli, or leave it out.")
    return Source(text)
