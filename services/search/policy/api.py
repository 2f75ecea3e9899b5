"""The REST API of the policy: thin, all decisions are the use cases'."""

# No postponed annotations: FastAPI could not resolve the local names in those below.
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from services.search.policy import Decision
from services.search.policy.dry_run import Difference
from services.search.policy.review import PolicyReview
from services.shared.http import PROBLEM, bearer
from services.shared.tokens import Principal, TokenVerifier

MAX_POLICY_CHARS = 256 * 1024


class PolicyBody(BaseModel):
    """`digest` is that which stands in every answer and audit entry."""

    digest: str
    watchlists_digest: str
    policies: list[str] = Field(description="Their ids, in the order of the file.")
    text: str


class Change(BaseModel):
    """What would be changed; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    policies: str | None = Field(default=None, max_length=MAX_POLICY_CHARS, description="The text of policies.cedar.")
    cedar_schema: str | None = Field(default=None, max_length=MAX_POLICY_CHARS)
    watchlists: str | None = Field(default=None, max_length=MAX_POLICY_CHARS, description="A watchlists.toml.")


class Verdict(BaseModel):
    """Owners by watchlist ("*": of every owner), or why not."""

    is_permitted: bool
    owners: dict[str, list[str]]
    policies: dict[str, list[str]]
    denials: list[str]


class Differing(BaseModel):
    """`request_id` is a search_id where the request was permitted then. Neither person nor case is named."""

    request_id: str
    at: datetime
    was_permitted: bool
    purpose: str
    case_type: str
    nature: str = Field(description="What the request declared the picture to be.")
    watchlists: list[str]
    now: Verdict
    changed: Verdict


class DryRunBody(BaseModel):
    """`drifted`: requests of which today's rules already say otherwise than when they came. `differences` lists at most
    the first thousand of `differing`."""

    considered: int
    differing: int
    newly_permitted: int
    newly_denied: int
    drifted: int
    digest_now: str
    digest_changed: str
    differences: list[Differing]
    left_out_before: datetime | None = Field(
        description="Set where more than 20,000 requests came in the month: those before this time were not decided."
    )


_PROBLEM: dict[str, Any] = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"description": "`unauthenticated`", "content": _PROBLEM},
    403: {"description": "`forbidden`", "content": _PROBLEM},
    429: {"description": "`too_many_requests`", "content": _PROBLEM},
    503: {"description": "`audit_unavailable`", "content": _PROBLEM},
}
_INVALID: dict[int | str, dict[str, Any]] = {
    422: {"description": "`policy_invalid`, `invalid_request`", "content": _PROBLEM}
}


def create_policy_router(review: PolicyReview, verifier: TokenVerifier) -> APIRouter:
    """`GET /v1/policy` and `POST /v1/policy/dry-runs`."""
    router = APIRouter(prefix="/v1/policy", tags=["policy"])
    caller = bearer(verifier)

    @router.get("", summary="Read the policy in force", responses=_REFUSALS)
    def read_policy(principal: Annotated[Principal, Depends(caller)]) -> PolicyBody:
        """For administrators, supervisors and auditors. Reading is recorded."""
        rules = review.read(principal)
        text = rules.engine.text
        return PolicyBody(
            digest=text.digest, watchlists_digest=rules.watchlists.digest, policies=list(text.ids), text=text.source
        )

    @router.post("/dry-runs", summary="Try a change on last month's requests", responses={**_REFUSALS, **_INVALID})
    def try_change(principal: Annotated[Principal, Depends(caller)], change: Change) -> DryRunBody:
        """For administrators: requests of your own force, decided by the rules in force and by the change.

        Nothing is changed by it. Neither persons nor cases are named.
        """
        outcome, now, changed = review.try_change(principal, change.policies, change.cedar_schema, change.watchlists)
        return DryRunBody(
            considered=outcome.considered,
            differing=outcome.differing,
            newly_permitted=outcome.newly_permitted,
            newly_denied=outcome.newly_denied,
            drifted=outcome.drifted,
            digest_now=now.engine.text.digest,
            digest_changed=changed.engine.text.digest,
            differences=[_differing(one) for one in outcome.differences],
            left_out_before=outcome.left_out_before,
        )

    return router


def _differing(difference: Difference) -> Differing:
    recorded = difference.recorded
    return Differing(
        request_id=recorded.request_id,
        at=recorded.opened_at,
        was_permitted=recorded.was_permitted,
        purpose=recorded.request.purpose,
        case_type=recorded.request.case_type.value,
        nature=recorded.request.nature.value,
        watchlists=list(recorded.request.watchlists),
        now=_verdict(difference.now),
        changed=_verdict(difference.changed),
    )


def _verdict(decision: Decision) -> Verdict:
    return Verdict(
        is_permitted=decision.is_permitted,
        owners={scope.watchlist_id: sorted(scope.owners or {"*"}) for scope in decision.scopes},
        policies={scope.watchlist_id: list(scope.policies) for scope in decision.scopes},
        denials=[denial.code for denial in decision.denials],
    )
