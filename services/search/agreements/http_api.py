"""The REST API of agreements: thin, all decisions are the registry's."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.search.agreements.documents import Grant, Signature
from services.search.agreements.ports import AgreementRecord
from services.search.agreements.registry import AgreementRegistry, AgreementView
from services.shared.clock import rfc3339
from services.shared.http import PROBLEM, bearer
from services.shared.tokens import Principal, TokenVerifier

Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")
]


class SignedGrant(BaseModel):
    """What `likeness agreements sign` writes: the document, and the owner's signature over its canonical bytes."""

    model_config = ConfigDict(extra="forbid")

    document: Grant
    signature: Signature


class WithdrawalForm(BaseModel):
    """`signature` is the owner's over the withdrawal document; an administrator of the owner may leave it out."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason
    withdrawn_on: date | None = Field(default=None, description="The day that no longer counts; today when left out.")
    signature: Signature | None = None


class RecordBody(BaseModel):
    version: int
    kind: str
    recorded_at: str
    recorded_by: str
    recorded_by_force: str
    reason: str
    key_id: str | None


class AgreementBody(BaseModel):
    """`history` is empty for an agreement of the platform's configuration that nobody has withdrawn."""

    reference: str
    watchlist: str
    owner: str
    signed_on: date
    expires_on: date
    withdrawn_on: date | None
    is_in_force: bool
    history: list[RecordBody]


class AgreementList(BaseModel):
    agreements: list[AgreementBody]


def _problems(**codes: str) -> dict[int | str, dict[str, Any]]:
    schema = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {int(status[1:]): {"description": text, "content": schema} for status, text in codes.items()}


_REFUSALS = _problems(
    s401="`unauthenticated`", s403="`forbidden`", s429="`too_many_requests`", s503="`audit_unavailable`"
)


def create_agreements_router(registry: AgreementRegistry, verifier: TokenVerifier) -> APIRouter:
    """`GET` and `POST /v1/agreements`, `POST /v1/agreements/{reference}/withdrawal`."""
    router = APIRouter(prefix="/v1/agreements", tags=["agreements"])
    caller = bearer(verifier)

    @router.get("", summary="See agreements", responses=_REFUSALS)
    def list_agreements(principal: Annotated[Principal, Depends(caller)]) -> AgreementList:
        """Those of your force, and of the watchlists in your token. Looking is recorded."""
        return AgreementList(agreements=[_body(view) for view in registry.list(principal)])

    @router.post(
        "",
        status_code=201,
        summary="Register an owner's agreement",
        responses={
            **_REFUSALS,
            **_problems(s409="`agreement_reference_used`", s422="`agreement_signature_invalid`, `invalid_request`"),
        },
    )
    def register(
        principal: Annotated[Principal, Depends(caller)], signed: SignedGrant, response: Response
    ) -> AgreementBody:
        """In force from the next search on. The same document again is answered with 200 and changes nothing."""
        view, is_new = registry.register(principal, signed.document, signed.signature)
        response.status_code = 201 if is_new else 200
        return _body(view)

    @router.post(
        "/{reference}/withdrawal",
        summary="Withdraw an agreement",
        responses={
            **_REFUSALS,
            **_problems(s404="`not_found`", s409="`conflict`", s422="`invalid_request`, `agreement_signature_invalid`"),
        },
    )
    def withdraw(
        principal: Annotated[Principal, Depends(caller)], reference: str, form: WithdrawalForm
    ) -> AgreementBody:
        """No longer in force from the next search on, and looked at again before a running one is answered."""
        return _body(registry.withdraw(principal, reference, form.withdrawn_on, form.reason, form.signature))

    return router


def _body(view: AgreementView) -> AgreementBody:
    agreement = view.agreement
    return AgreementBody(
        **agreement.model_dump(), is_in_force=view.is_in_force, history=[_record(record) for record in view.history]
    )


def _record(record: AgreementRecord) -> RecordBody:
    return RecordBody(
        version=record.version,
        kind=record.document.kind,
        recorded_at=rfc3339(record.recorded_at),
        recorded_by=record.recorded_by,
        recorded_by_force=record.recorded_by_force,
        reason=record.reason,
        key_id=None if record.signature is None else record.signature.key_id,
    )
