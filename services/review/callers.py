"""Who calls over HTTP, with the token that travels on."""

# No postponed annotations: FastAPI could not resolve the local name in that of the dependency.
from collections.abc import Awaitable, Callable

from fastapi import Depends, Request

from services.review.casework.caller import Caller
from services.shared.http import bearer
from services.shared.tokens import Principal, TokenVerifier


def calling(verifier: TokenVerifier) -> Callable[..., Awaitable[Caller]]:
    """A dependency that gives the verified caller or raises Unauthenticated."""
    verified = bearer(verifier)

    async def caller(request: Request, principal: Principal = Depends(verified)) -> Caller:
        return Caller(principal, request.headers.get("authorization", "").partition(" ")[2].strip())

    return caller
